"""The eight-organ labels of Gibson et al. 2018 (Dense V-Net) on scans of Pancreas-CT and BTCV.

`layout` finds labels and scans, `placement` puts a label on a DICOM scan, `case` reads one case.
"""
