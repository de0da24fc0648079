"""Many cases, on threads, and what only shows between them."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count

from attn_unet_jax.cases.options import DataOptions
from attn_unet_jax.inspection.finding import Finding
from attn_unet_jax.inspection.inspected_case import InspectedCase, inspect_case
from attn_unet_jax.inspection.sources import CaseToInspect
from attn_unet_jax.labels import LabelMapping


def inspect_all(
  subjects: Sequence[CaseToInspect], mapping: LabelMapping, options: DataOptions, threads: int
) -> Iterator[InspectedCase]:
  """Looks at every case; `threads` of them are open at a time, each comes when it is its turn."""
  with ThreadPoolExecutor(threads) as pool:
    yield from pool.map(partial(inspect_case, mapping=mapping, options=options), subjects, count(1))


def mark_duplicates(cases: Iterable[InspectedCase]) -> None:
  """Adds to every case whose voxels an earlier one has, in whatever order of axes."""
  first: dict[str, InspectedCase] = {}
  for case in cases:
    image = case.digests.get("image")
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
