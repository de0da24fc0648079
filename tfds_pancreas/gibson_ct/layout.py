"""Where the labels of Gibson et al. and the scans that they belong to lie under one folder.

The release (Zenodo 1169361) has labels only, and a table:

  label_tcia_multiorgan/label0001.nii.gz    of PANCREAS_0001 in Pancreas-CT, a DICOM series
  label_btcv_multiorgan/label0001.nii.gz    of img0001.nii.gz in BTCV, from Training or Testing
  cropping.csv                              a box per scan, outside of which labels are incomplete

Names and folders are those that public loaders of the release use.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from attn_unet_jax.runtime.errors import UserError
from tfds_pancreas.folders import walk
from tfds_pancreas.pancreas_ct.layout import Scan, case_id, find_scans

CHECK_LIST = (
  "--manual_dir must hold, at any depth, "
  "(1) from https://zenodo.org/records/1169361, unpacked: label_tcia_multiorgan/label0001.nii.gz, "
  "label_btcv_multiorgan/label0001.nii.gz (or one of the two folders) and cropping.csv; "
  "(2) the scans of Pancreas-CT as DICOM, PANCREAS_0001/..., as for pancreas_ct; "
  "(3) those of BTCV, RawData/Training/img/img0001.nii.gz and RawData/Testing/img/img0061.nii.gz"
)
_LABEL = re.compile(r"label(\d{4})\.nii(?:\.gz)?")
_IMAGE = re.compile(r"img(\d{4})\.nii(?:\.gz)?")
_PUBLISHER = {"tcia": "TCIA", "btcv": "Synapse"}  # as cropping.csv names them


@dataclass(frozen=True)
class GibsonCase:
  """A label and what was found of its scan: right is one.

  Attributes:
    cropping: its row of cropping.csv, as it stands there.
  """

  id: str
  label: Path
  scans: tuple[Scan, ...]
  cropping: Mapping[str, str] = field(default_factory=dict)


def find_cases(root: Path) -> list[GibsonCase]:
  """Every case of which there is a label; those of Pancreas-CT first.

  Raises:
    UserError: no label at all, or two of one case.
  """
  labels = {source: _labels(root, source) for source in _PUBLISHER}
  if not any(labels.values()):
    raise UserError(f"--manual_dir={root}: no labels of Gibson et al. found. {CHECK_LIST}")
  scans = {
    "tcia": find_scans(root)[0] if labels["tcia"] else {},
    "btcv": _numbered(root, _IMAGE) if labels["btcv"] else {},
  }
  boxes = _cropping(root)
  return [
    GibsonCase(
      case_id(number) if source == "tcia" else f"img{number:04d}",
      label,
      tuple(scans[source].get(number, ())),
      boxes.get((_PUBLISHER[source], number), {}),
    )
    for source in _PUBLISHER
    for number, label in sorted(labels[source].items())
  ]


def _labels(root: Path, source: str) -> Mapping[int, Path]:
  found = _numbered(root, _LABEL, within=f"label_{source}_multiorgan")
  twice = [paths for paths in found.values() if len(paths) > 1]
  if twice:
    raise UserError(f"{twice[0][0]}: {twice[0][1]} is the same case; remove one of them")
  return {number: paths[0] for number, paths in found.items()}


def _numbered(
  root: Path, pattern: re.Pattern[str], within: str | None = None
) -> Mapping[int, Sequence[Path]]:
  """Files by the number in their name; with `within`, those in folders of that name."""
  found: defaultdict[int, list[Path]] = defaultdict(list)
  for folder, names in walk(root):
    if within in (None, folder.name):
      for match in filter(None, map(pattern.fullmatch, names)):
        found[int(match[1])].append(folder / match[0])
  return found


def _cropping(root: Path) -> Mapping[tuple[str, int], Mapping[str, str]]:
  """Rows of cropping.csv by publisher and number; nothing where there is no such table."""
  tables = [folder / "cropping.csv" for folder, names in walk(root) if "cropping.csv" in names]
  if not tables:
    return {}
  try:
    rows = list(csv.DictReader(tables[0].read_text().splitlines()))
    return {(row["publisher"], int(row["original_id"])): row for row in rows}
  except (KeyError, ValueError, TypeError) as error:
    raise UserError(
      f"{tables[0]}: no table with the columns publisher and original_id ({error}); take it from "
      "the release again, or remove it"
    ) from None
