"""Inspects many cases on threads, and compares them with each other."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from attn_unet_jax.cases.options import DataOptions
from attn_unet_jax.inspection.inspected_case import InspectedCase, inspect_case
from attn_unet_jax.inspection.sources import CaseToInspect
from attn_unet_jax.labels import LabelMapping
from attn_unet_jax.volumes.finding import Finding


def inspect_all(
  subjects: Sequence[CaseToInspect], mapping: LabelMapping, options: DataOptions, threads: int
) -> Iterator[InspectedCase]:
  """Yields every case after its inspection, in order, with `threads` of them open at a time."""
  # Threads are enough: nearly all the time is spent in zlib and NumPy, which release the
  # interpreter's lock.
  with ThreadPoolExecutor(threads) as pool:
    yield from pool.map(partial(inspect_case, mapping=mapping, options=options), subjects)


def mark_duplicates(cases: Iterable[InspectedCase]) -> None:
  """Adds a finding to every case with the voxels of an earlier one, in any order of axes."""
  first: dict[str, InspectedCase] = {}
  for case in cases:
    image = case.digests.get("image")
    # An image that could not be read has no digest, and is nobody's twin.
    earlier = first.setdefault(image, case) if image else case
    if earlier is not case:
      case.findings.append(
        Finding(
          "error",
          "duplicate",
          f"{case.figures['image']}: the same voxels as {earlier.figures['image']}; one patient on "
          "both sides of a fold makes every score too high: remove one",
        )
      )
    label = case.digests.get("label")
    # Empty labels are all equal, and reported as empty already. Of a twin of the same earlier case
    # the image has said it.
    twin = first.setdefault(label, case) if label and any(case.figures["ml"].values()) else case
    if twin not in (case, earlier):
      case.findings.append(
        Finding(
          "warning",
          "duplicate_label",
          f"{case.figures['label']}: the same label as {twin.figures['label']}, of another image; "
          "one of them is of the wrong scan",
        )
      )
