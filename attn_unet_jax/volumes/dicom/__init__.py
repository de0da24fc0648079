"""Reads CT series from DICOM.

From files to series: `folder` lists a folder, `files` opens what lies in folders and zips,
`signature` tells DICOM by its first bytes, `header` reads what a file is, `deflated` counts what it
unpacks to, `strays` and `outsiders` find slices that were lost, `series` finds out which files
belong together, and `studies` which folders are scans.

From a series to voxels: `frames` unpacks files of several slices, `geometry` puts the slices onto
one grid, `rescale` decides what their values mean, `padding` finds what was not measured, `voxels`
reads the pixels, and `read` gives the volume. `damage` turns what pydicom raises into a message.
"""
