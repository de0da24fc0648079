"""DICOM series: which files, which of them belong together, where they lie, their voxels."""
