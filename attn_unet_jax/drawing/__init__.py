"""Draws CT and curves: pure functions from arrays to pictures.

`planes` cuts and outlines slices with NumPy alone. `canvas` writes text and lines with Pillow;
`preview`, `contact_sheet` and `curves` lay out whole pictures on it.
"""
