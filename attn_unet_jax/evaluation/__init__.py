"""Scores of a predicted mask against a reference mask, both on the native grid.

`overlap` counts voxels (DSC, IoU, precision, recall, volume) and summarises scores over cases;
`surface` measures the distance of surfaces (ASSD); `paired` tests two systems on the same cases.
NumPy and SciPy only: nothing here knows of files, flags, JAX or the other packages. The one rule
for empty masks is written in `overlap`.
"""
