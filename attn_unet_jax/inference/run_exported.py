"""Segments a CT scan with an exported network, without the program that trained it.

  python run_exported.py SCAN.nii.gz MASK.nii.gz [NETWORK.stablehlo]

Needs jax, numpy, scipy and nibabel. Beside NETWORK.stablehlo, by default network.stablehlo beside
this file, lies NETWORK.json, which says how a scan is brought to the network and back. The scan is
believed: nothing is checked but its axes. Not a medical device.
"""

import dataclasses
import itertools
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np
from jax import export
from nibabel import orientations
from scipy import ndimage

Array = np.ndarray
RAS = np.array([[0, 1], [1, 1], [2, 1]])


def declare_inputs(window: Any, *, uses_statistics: bool) -> list[jax.ShapeDtypeStruct]:
  """Returns the inputs: HU of N windows and, for a z-score, mean and sd of the whole scan."""
  shapes = [(*export.symbolic_shape("n"), *window), *[()] * (2 if uses_statistics else 0)]
  return [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]


def open_network(file: Path, about: Any) -> Callable[..., jax.Array]:
  """Returns the function in a file of StableHLO: windows to probabilities [N, X, Y, Z, K]."""
  shape, inputs = (*about["windows"]["answer"], len(about["classes"])), about["network"]["inputs"]
  specs = declare_inputs(about["windows"]["shape"], uses_statistics=len(inputs) > 1)
  # What surrounds the code, such as the types of its inputs, is taken from a function like it.
  like = jax.jit(lambda hu, *_: jnp.zeros((hu.shape[0], *shape), jnp.float32), keep_unused=True)
  frame = export.export(like, platforms=about["network"]["platforms"])(*specs)
  version = about["network"]["calling_convention_version"]
  code = {"mlir_module_serialized": file.read_bytes(), "calling_convention_version": version}
  return jax.jit(dataclasses.replace(frame, **code).call)


def resample(array: Array, old_mm: Array, shape: Any, new_mm: Array) -> Array:
  """Interpolates linearly on another grid with the same centre; edges are continued."""
  array = array.astype(np.float32)
  # In the order of the program that trained the network, so that sums are rounded alike.
  for axis in (2, 1, 0) if shape[1] <= array.shape[1] else (2, 0, 1):
    n, m = array.shape[axis], shape[axis]
    places = (np.arange(m) - (m - 1) / 2) * (new_mm[axis] / old_mm[axis]) + (n - 1) / 2
    # A place that is meant to be whole becomes so, whatever the last bit of a spacing is.
    places = np.clip(np.round(places, 6), 0, n - 1)
    low = np.floor(places).astype(int)
    weight = (places - low).astype(np.float32).reshape(-1, *[1] * (2 - axis))
    start, end = array.take(low, axis), array.take(np.minimum(low + 1, n - 1), axis)
    array = start + (end - start) * weight
  return array


def keep_tissue(hu: Array, mask: Array) -> Array | None:
  """Returns the pieces of a mask that are not small; None if they are no body by their HU."""
  pieces, count = ndimage.label(mask)
  sizes = np.bincount(pieces.ravel())
  sizes[0] = 0
  if not count or not -200 <= float(np.median(hu[pieces == sizes.argmax()])) <= 200:
    return None
  kept: Array = (sizes >= 0.05 * sizes.max())[pieces]
  return kept


def find_outside(hu: Array, spacing: float) -> Array:
  """Returns the air that reaches the sides of the axial planes, and the table in it."""
  dense, plane = hu > -500, ndimage.generate_binary_structure(3, 1)
  plane[..., [0, 2]] = False
  # What is thinner than 6 mm is the shell of a table; it may touch the patient.
  opened, steps = dense, round(3 / spacing)
  if steps:
    opened = ndimage.binary_erosion(dense, plane, steps, border_value=1)
    opened = ndimage.binary_dilation(opened, plane, steps)
  tissue = keep_tissue(hu, opened)
  if tissue is None:
    return np.zeros(hu.shape, bool)
  # Thin walls over gas, and folds of skin, went too.
  if steps := round(12 / spacing):
    tissue = ndimage.binary_dilation(tissue, None, steps, mask=dense)
  pieces, count = ndimage.label(~tissue)
  sides = np.concatenate([pieces[[0, -1]].ravel(), pieces[:, [0, -1]].ravel()])
  # The tissue itself, number 0, and a lung that a narrow field of view cuts are no air.
  share = ndimage.mean(hu < -900, pieces, np.arange(count + 1))
  outside: Array = (np.isin(np.arange(count + 1), sides) & (share >= 0.5))[pieces]
  return outside


def find_body(hu: Array, spacing: float) -> list[tuple[int, int]]:
  """Returns where a box around the patient begins and ends on each axis, with 10 mm of air."""
  kept, box = keep_tissue(hu, hu > -500), []
  if kept is None:
    return [(0, n) for n in hu.shape]
  for axis, n in enumerate(hu.shape):
    on = np.flatnonzero(kept.any(tuple({0, 1, 2} - {axis})))
    # In mm from the middle, and rounded, as the run itself did it.
    low, high = ((edge - n / 2) * spacing for edge in (on[0], on[-1] + 1))
    first, end = (round(mm / spacing + n / 2, 6) for mm in (low - 10, high + 10))
    box.append((max(0, math.floor(first)), min(n, math.ceil(end))))
  return box


def predict(hu: Array, about: Any, network: Callable[..., jax.Array]) -> Array:
  """Slides the network over HU int16 [X, Y, Z]; returns probabilities float32 [X, Y, Z, K]."""
  windows, spacing = about["windows"], about["scan"]["spacing_mm"]
  seen, inner, margin = windows["shape"], windows["answer"], windows["margin"]
  part = find_body(hu, spacing) if windows["region"] == "body" else [(0, n) for n in hu.shape]

  def spread(n: int, size: int) -> list[int]:
    """Returns the starts of windows along an axis of n voxels."""
    room = max(0, n - size)
    last = math.ceil(room / max(1, size * (1 - windows["overlap"])))
    return [round(i * room / max(1, last)) for i in range(last + 1)]

  def cover(box: Any) -> list[list[int]]:
    """Returns the starts of windows along the axes of a box."""
    return [spread(b - a, size) for (a, b), size in zip(box, inner, strict=True)]

  whole = [(0, n) for n in hu.shape]
  # Air is left out only where that saves a tenth.
  if math.prod(map(len, cover(part))) > 0.9 * math.prod(map(len, cover(whole))):
    part = whole
  starts = cover(part)
  extent = [axis[-1] + size for axis, size in zip(starts, inner, strict=True)]
  origin = [
    min(max(0, a - (e - (b - a)) // 2), max(0, n - e))
    for (a, b), e, n in zip(part, extent, hu.shape, strict=True)
  ]
  # Of the scan before it is padded, as in training.
  statistics = (
    [np.float32(hu.mean(dtype=float)), np.float32(hu.std(dtype=float))]
    if len(about["network"]["inputs"]) > 1
    else []
  )
  missing = [max(0, size - n) for size, n in zip(inner, hu.shape, strict=True)]
  before = [(m + 1) // 2 for m in missing]
  around = [(b, m - b) for b, m in zip(before, missing, strict=True)]
  # By the minimum to a window, as in training; then the border is repeated, so that no edge appears
  # in what is only looked at.
  padded = np.pad(hu.astype(np.float32), around, constant_values=hu.min())
  padded = np.pad(padded, [(m, m) for m in margin], mode="edge")
  sizes = [n + m for n, m in zip(hu.shape, missing, strict=True)]
  total = np.zeros((*sizes, len(about["classes"])), np.float32)
  weight = np.zeros((*sizes, 1), np.float32)
  bells = [np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (n / 8)) ** 2) for n in inner]
  bell = bells[0][:, None, None] * bells[1][:, None] * bells[2]
  # A corner that one window alone covers is divided by its weight.
  bell = np.maximum(bell, 1e-3).astype(np.float32)[..., None]
  for corner in itertools.product(*starts):
    at = [o + c for o, c in zip(origin, corner, strict=True)]
    window = padded[tuple(slice(a, a + n) for a, n in zip(at, seen, strict=True))]
    answer = np.asarray(network(window[None], *statistics))[0]
    where = tuple(slice(a, a + n) for a, n in zip(at, inner, strict=True))
    total[where] += answer * bell
    weight[where] += bell
  total[..., :1][weight == 0] = 1  # air around the body is background
  total /= np.where(weight == 0, 1, weight)
  return total[tuple(slice(b, b + n) for b, n in zip(before, hu.shape, strict=True))]


def keep_components(mask: Array, likely: Array, steps: Any, voxel_ml: float) -> Array:
  """Takes the steps that follow the choice of the likeliest class, class by class.

  `likely` is the probability of the class that each voxel has in the mask.
  """
  result, smallest = np.zeros_like(mask), steps["smallest_ml"] / voxel_ml - 1e-6
  classes = range(1, int(mask.max()) + 1)
  concerned = steps["values"] or classes
  for value in classes:
    pieces, _ = ndimage.label(mask == value)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    kept = sizes >= max(smallest if value in concerned else 0, 1)  # 1: not what is outside
    if value in steps["one_piece"]:
      # The log odds of the class; where it nowhere is likelier than not, the voxels are counted.
      held = np.clip(likely, 0.5, 1 - 1e-6)
      sums = np.bincount(pieces.ravel(), (np.log(held / (1 - held)) + 1e-6).ravel())
      kept &= np.arange(sizes.size) == sums[1:].argmax() + 1
    elif steps["largest_component"] or (steps["largest"] and value in concerned):
      kept &= np.arange(sizes.size) == sizes.argmax()
    result[kept[pieces]] = value
  filled = result.copy()
  # Holes are those before any is filled, so that the order of classes does not matter.
  for value in concerned if steps["fill_holes"] else ():
    filled[ndimage.binary_fill_holes(result == value) & (result == 0)] = value
  return filled


def segment(image: Any, about: Any, network: Callable[..., jax.Array]) -> Array:
  """Returns class indices uint8 on the voxels of a NIfTI image."""
  turn = orientations.io_orientation(image.affine)
  data = np.asanyarray(image.dataobj).astype(np.float32)
  # Some files store a fourth axis of length 1.
  hu = orientations.apply_orientation(data.reshape(data.shape[:3]), turn)
  affine = image.affine @ orientations.inv_ornt_aff(turn, data.shape[:3])
  slopes = np.linalg.qr(affine[:3, :3])[1]
  # Of perpendicular axes only the diagonal is left; up to half a voxel of shear is harmless.
  slopes /= np.diag(slopes)[:, None]
  if np.max(np.abs(np.triu(slopes, 1)) @ (np.array(hu.shape) - 1)) > 0.5:
    raise SystemExit("the scan's axes are not perpendicular, as of a tilted gantry: straighten it")
  # As the program rounds: an affine in float32 puts 0.78125 mm above or below the half.
  old_mm = np.floor(np.linalg.norm(affine[:3, :3], axis=0) * 1e4 + 0.51) / 1e4
  new_mm = np.full(3, about["scan"]["spacing_mm"])
  shape = [max(1, round(n)) for n in (np.array(hu.shape) * old_mm / new_mm).tolist()]
  if about["scan"]["blur_mm"]:
    hu = ndimage.gaussian_filter(hu, about["scan"]["blur_mm"] / old_mm, mode="nearest")
  working = np.clip(np.rint(resample(hu, old_mm, shape, new_mm)), -32768, 32767).astype(np.int16)
  found, steps = predict(working, about, network), about["after"]
  if steps["within_body"]:
    found[find_outside(working, new_mm[0])] = np.eye(1, found.shape[-1])
  odds = steps["threshold"] / (1 - steps["threshold"])
  # Steps for some classes leave the threshold of the others as it is.
  weights = dict.fromkeys(steps["values"], 1 / odds) or {0: odds}
  best = np.full(hu.shape, -1, np.float32)  # below every probability
  mask = np.zeros(hu.shape, np.uint8)
  likely = np.zeros(hu.shape, np.float32)
  for value in range(found.shape[-1]):
    weight = np.float32(weights.get(value, 1))
    here = resample(found[..., value] * weight, new_mm, hu.shape, old_mm)
    won = here > best
    mask[won], best[won], likely[won] = value, here[won], here[won] / weight
  mask = keep_components(mask, likely, steps, abs(np.linalg.det(affine[:3, :3])) / 1000)
  back: Array = orientations.apply_orientation(mask, orientations.ornt_transform(RAS, turn))
  return back


def check_mask(scan: str, mask: str) -> None:
  """Refuses a mask that is no NIfTI file, or would overwrite its scan."""
  if not mask.endswith((".nii", ".nii.gz")):
    raise SystemExit(f"{mask}: a mask is NIfTI: name a file that ends in .nii or .nii.gz")
  # By what the names lead to: one may be a link to the other.
  if os.path.exists(mask) and os.path.samefile(scan, mask):
    raise SystemExit(f"{mask}: is the scan, which its mask would overwrite: name another file")


def save_mask(image: Any, mask: str) -> None:
  """Writes a NIfTI image as a whole or not at all."""
  file = Path(mask).resolve()
  # In the same folder, since a file is renamed within a disk alone; its ending names the format.
  temporary = file.with_name(f".{os.getpid()}.{file.name}")
  try:
    nib.save(image, temporary)
    os.replace(temporary, file)
  finally:
    temporary.unlink(missing_ok=True)


def main(scan: str, mask: str, network: str = "") -> None:
  """Reads a scan and writes its mask."""
  check_mask(scan, mask)
  file = Path(network or Path(__file__).with_name("network.stablehlo"))
  about = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
  image: Any = nib.load(scan)
  values = segment(image, about, open_network(file, about))
  written = nib.Nifti1Image(values, image.affine)
  # Some programs read the one matrix, some the other.
  written.set_sform(image.affine, "scanner")
  written.set_qform(image.affine, "scanner")
  save_mask(written, mask)
  for name, value in about["classes"].items():
    if value:
      ml = np.count_nonzero(values == value) * abs(np.linalg.det(image.affine[:3, :3])) / 1000
      print(f"{value} {name} {ml:.2f} ml")


if __name__ == "__main__":
  main(*sys.argv[1:])
