"""Volumes: an array with its place in the patient, from file to working grid and back.

Geometry is decided here and nowhere else. A `Volume` is `[X, Y, Z]` voxels with an affine to
millimetres in RAS+; `nifti` reads and writes it, `nifti_folder` finds a folder's images and their
labels, `dicom` reads it (`dicom_files`, `dicom_series` and `dicom_geometry` say which files, which
of them belong together, and where they lie), `scan` reads NIfTI or DICOM, `orientation` turns it to
canonical axes and back, `resample` takes it to the working grid and brings a prediction back to the
native one, `components` keeps the largest piece of a mask, `checks` says what cannot be trusted,
`intensity` measures it. This package imports numpy, scipy, nibabel, pydicom and of `attn_unet_jax`
only `errors`, `files` and `memory`, and knows nothing of JAX, of flags or of the other packages;
everything else may import it.
"""

from attn_unet_jax.volumes.volume import Grid, Volume

__all__ = ["Grid", "Volume"]
