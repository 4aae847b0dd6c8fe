"""Recorded data in place of a microscope."""
