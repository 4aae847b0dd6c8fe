"""Driving the stage over a slide: which area, along which lanes, how fast, in which focus, and back to what was missed."""
