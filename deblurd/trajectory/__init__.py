"""Objects over time: found in each frame of a series, linked to trajectories, measured.

A series goes through it frame by frame: `sources` reads, `detect` finds, `link` joins, `own_motion` takes out the blur that an object's own
velocity leaves, `measure` counts, `files` and `pictures` write. `follow` is the way between them, and holds three frames at a time.
"""
