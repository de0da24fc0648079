"""Reads CT series from DICOM.

`files` opens the files of a folder or a zip, `series` finds out which of them belong together,
`frames` unpacks files of several slices, `geometry` puts the slices onto one grid, and `read` gives
the volume.
"""
