"""The eight-organ labels of Gibson et al. 2018 (Dense V-Net) on scans of Pancreas-CT and BTCV.

`gibson_files` finds labels and scans, `label_placement` puts a label on a DICOM scan, and
`gibson_case` reads and checks one case.
"""
