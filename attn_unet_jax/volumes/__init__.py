"""Voxel arrays with their place in the patient, from the file to the working grid and back.

Geometry is decided here and nowhere else. A `Volume` is an array `[X, Y, Z]` with an affine to
millimetres in RAS+.

* `nifti` reads and writes it: `nifti_header` decides what can be read, `nifti_voxels` converts the
  values. `nifti_folder` finds a folder's images and their labels.
* `dicom/` reads it from DICOM: `files` opens files and zips, `series` sorts them into series,
  `frames` and `geometry` say where each slice lies, `read` puts the slices together. A mask goes
  back onto the slices that `source` describes: by `write_segmentation`, or by `write_structures`,
  which draws `contours`. `anatomy` has the codes of organs.
* `scan` reads either format.
* `judge` decides for every command whether a scan can be trusted: `hounsfield` looks at its values,
  `placement` at its header, `pose` at the anatomy; `finding` is what they say. `checks` refuses
  what no user can accept.
* `orientation` turns a volume to canonical axes and back; `shear` straightens those of a tilted
  gantry too.
* `resample` brings it to the working grid, and a prediction back to the native grid.
* `box` and `bspline` are geometry on grids, `components` keeps the largest piece of a mask,
  `intensity` measures the values.

This package imports numpy, scipy, nibabel, pydicom, highdicom where it is asked for and, of
`attn_unet_jax`, only `runtime`. It knows nothing of JAX, of flags or of the other packages. Every
other package may import it.
"""

from attn_unet_jax.volumes.volume import Grid, Volume

__all__ = ["Grid", "Volume"]
