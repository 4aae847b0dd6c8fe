"""Captured pairs for the trainer: the same places of a slide sharp, out of focus and in motion."""
