"""Makes the volumes of a case small enough to embed in a page."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from attn_unet_jax.drawing.page.coding import encode_volume
from attn_unet_jax.drawing.page.overlays import EmbeddedMap, embed_maps
from attn_unet_jax.drawing.planes import find_centre, find_region
from attn_unet_jax.volumes.orientation import to_canonical
from attn_unet_jax.volumes.volume import Grid, Volume

# HU and the codes that stand for them, linear in between: steps of 2.5 HU in soft tissue, of 27 HU
# in lungs and bone.
CODED_HU = ((-1000.0, 0), (-200.0, 30), (300.0, 230), (1000.0, 255))
# Voxels of one case: 20 cases of these take less than 20 MB in a page.
MAX_VOXELS = 1_500_000
_AROUND_MM = 40.0
_UNLABELLED = 255


@dataclass(frozen=True)
class EmbeddedCase:
  """A case whose volumes are encoded.

  Attributes:
    id: of the case.
    role: what it is shown for, such as `worst`; '' if for nothing.
    score: in words, such as `DSC 0.66`.
    shape: voxels along the canonical axes.
    spacing: of these voxels, mm.
    centre: the voxel in the middle of the organ.
    about: which part of the scan this is.
    volumes: `image`, `prediction` and, where it is known, `truth`, each as `encode_volume` writes
      it.
    maps: by name, of gates and of uncertainty; see `drawing.page.overlays`.
    map_shape: of the maps, which cover the same part of the scan by fewer voxels.
  """

  id: str
  role: str
  score: str
  shape: tuple[int, int, int]
  spacing: tuple[float, float, float]
  centre: tuple[int, int, int]
  about: str
  volumes: Mapping[str, str]
  maps: Mapping[str, EmbeddedMap] = field(default_factory=dict)
  map_shape: tuple[int, int, int] = (1, 1, 1)


def embed_case(
  case_id: str,
  role: str,
  score: str,
  image: Volume,
  truth: np.ndarray | None,
  prediction: np.ndarray,
  max_voxels: int = MAX_VOXELS,
  *,
  one_slice: bool = False,
  maps: Mapping[str, Volume] | None = None,
  about_maps: Mapping[str, str] | None = None,
  around: np.ndarray | None = None,
) -> EmbeddedCase:
  """Encodes the part of a case around the organ.

  Args:
    case_id: of the case.
    role: what it is shown for.
    score: in words.
    image: HU, axes as in its file.
    truth: class indices on the image's grid; None where nobody knows them.
    prediction: class indices on the same grid.
    max_voxels: beyond so many, only every second voxel along the finest axes is kept.
    one_slice: keep only the axial slice through the middle of the organ.
    maps: values by the name of their map, such as a gate, each on a grid of its own, canonical
      axes.
    about_maps: what is said of a map, by its name.
    around: the voxels [X, Y, Z] on canonical axes around which the scan is shown; None: those of
      truth and prediction.
  """
  canonical = to_canonical(image)
  classes = {
    # The viewer would take the value of unlabelled voxels for a class.
    kind: to_canonical(Volume(np.where(array == _UNLABELLED, 0, array), image.affine)).array
    for kind, array in (("truth", truth), ("prediction", prediction))
    if array is not None
  }
  organ = _unite(classes) if around is None else around
  region = find_region(organ, canonical.spacing, _AROUND_MM)
  if one_slice:
    middle = find_centre(organ)[2]
    region = (*region[:2], slice(middle, middle + 1))
  size = organ[region].shape
  steps = choose_steps(size, canonical.spacing, max_voxels)
  kept = tuple(
    # From the middle of each block, which its voxel stands for. `part.stop` may be None.
    slice(part.start + step // 2, part.start + length, step)
    for part, length, step in zip(region, size, steps, strict=True)
  )
  hu, masks = canonical.array[kept], {kind: array[kept] for kind, array in classes.items()}
  corner = np.eye(4)
  corner[:3, :3] = np.diag(steps)
  # The maps are laid over the voxels that are kept, not over those of the file.
  corner[:3, 3] = [part.start for part in kept]
  shown = Grid(hu.shape, canonical.affine @ corner)
  map_shape, found = embed_maps(shown, maps or {}, about_maps)
  spacing = [step * mm for step, mm in zip(steps, canonical.spacing, strict=True)]
  return EmbeddedCase(
    case_id,
    role,
    score,
    hu.shape,
    (spacing[0], spacing[1], spacing[2]),
    # In voxels that are kept, which the viewer counts.
    find_centre(_unite(masks)),
    _describe_part(canonical.shape, size, steps),
    {
      "image": encode_volume(code_hu(hu)),
      **{kind: encode_volume(mask.astype(np.uint8)) for kind, mask in masks.items()},
    },
    found,
    map_shape,
  )


def _unite(masks: Mapping[str, np.ndarray]) -> np.ndarray:
  """Returns the voxels that any of some masks has in a class."""
  united: np.ndarray = np.any([mask > 0 for mask in masks.values()], axis=0)
  return united


def choose_steps(
  size: tuple[int, ...], spacing: tuple[float, ...], max_voxels: int
) -> tuple[int, ...]:
  """Returns every how many-th voxel along each axis to keep, for at most `max_voxels`."""
  steps = [1] * len(size)
  while math.prod(math.ceil(n / step) for n, step in zip(size, steps, strict=True)) > max_voxels:
    # The finest axis can do best without half of its voxels; one of length 1 has none to lose.
    candidates = [axis for axis, n in enumerate(size) if math.ceil(n / steps[axis]) > 1]
    finest = min(candidates, key=lambda axis: steps[axis] * spacing[axis])
    steps[finest] += 1
  return tuple(steps)


def code_hu(hu: np.ndarray) -> np.ndarray:
  """Codes HU as uint8, see `CODED_HU`; what lies outside has the code of the nearest end."""
  known, codes = zip(*CODED_HU, strict=True)
  coded: np.ndarray = np.rint(np.interp(hu, known, codes)).astype(np.uint8)
  return coded


def _describe_part(whole: tuple[int, ...], size: tuple[int, ...], steps: tuple[int, ...]) -> str:
  share = (
    "the whole scan" if whole == size else f"the part around the organ, within {_AROUND_MM:g} mm"
  )
  if max(steps) == 1:
    return f"{share}, every voxel"
  return f"{share}; one voxel of each {' x '.join(map(str, steps))}"
