"""How the camera sees the stage: measured by its pictures while scanning, or in a run of its own, and kept for the next time."""
