"""TCIA Pancreas-CT: CT scans as DICOM series, their labels as NIfTI with untrusted headers.

`pancreas_files` finds the files, `label_alignment` puts a label on its scan, and `pancreas_case`
reads and checks one case. The builder writes records. Nothing here knows of JAX.
"""
