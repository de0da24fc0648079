"""TCIA Pancreas-CT: CT scans as DICOM series, their labels as NIfTI with untrusted headers.

`layout` finds the files, `alignment` puts a label on its scan, `checks` says with figures whether
that is right, `case` reads one case through all three, `report` keeps what was found, and the
builder writes records. Nothing here knows of JAX.
"""
