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
from tfds_pancreas.folders import take_single_files, walk_folders
from tfds_pancreas.pancreas_ct.pancreas_files import CaseScan, find_scans, format_case_id

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
class GibsonCaseFiles:
  """A label and the scans found for it; a good case has one scan.

  Attributes:
    cropping: its row of cropping.csv, as it stands there.
  """

  id: str
  label: Path
  scans: tuple[CaseScan, ...]
  cropping: Mapping[str, str] = field(default_factory=dict)


def find_gibson_cases(root: Path) -> list[GibsonCaseFiles]:
  """Finds every case that has a label; those of Pancreas-CT first.

  Raises:
    UserError: no label at all, or two of one case.
  """
  labels = {source: _find_labels(root, source) for source in _PUBLISHER}
  if not any(labels.values()):
    raise UserError(f"--manual_dir={root}: no labels of Gibson et al. found. {CHECK_LIST}")
  # A collection without labels is not looked for: its folder may hold thousands of files.
  scans: dict[str, Mapping[int, Sequence[CaseScan]]] = {
    "tcia": find_scans(root)[0] if labels["tcia"] else {},
    "btcv": _find_numbered_files(root, _IMAGE) if labels["btcv"] else {},
  }
  boxes = _read_cropping_table(root)
  return [
    GibsonCaseFiles(
      format_case_id(number) if source == "tcia" else f"img{number:04d}",
      label,
      tuple(scans[source].get(number, ())),
      boxes.get((_PUBLISHER[source], number), {}),
    )
    for source in _PUBLISHER
    for number, label in sorted(labels[source].items())
  ]


def _find_labels(root: Path, source: str) -> Mapping[int, Path]:
  return take_single_files(_find_numbered_files(root, _LABEL, f"label_{source}_multiorgan"))


def _find_numbered_files(
  root: Path, pattern: re.Pattern[str], within: str | None = None
) -> Mapping[int, Sequence[Path]]:
  """Finds files by the number in their name; with `within`, those in folders of that name."""
  found: defaultdict[int, list[Path]] = defaultdict(list)
  for folder, names in walk_folders(root):
    if within in (None, folder.name):
      # The whole name has to match: copies such as `label0001 (1).nii.gz` are no labels.
      for match in filter(None, map(pattern.fullmatch, names)):
        found[int(match[1])].append(folder / match[0])
  return found


def _read_cropping_table(root: Path) -> Mapping[tuple[str, int], Mapping[str, str]]:
  """Reads the rows of cropping.csv by publisher and number; none where there is no such table."""
  tables = [folder / "cropping.csv" for folder, names in walk_folders(root)
            if "cropping.csv" in names]  # fmt: skip
  if not tables:
    return {}  # only the report lacks something without it
  try:
    rows = list(csv.DictReader(tables[0].read_text().splitlines()))
    return {(row["publisher"], int(row["original_id"])): row for row in rows}
  except (KeyError, ValueError, TypeError) as error:
    raise UserError(
      f"{tables[0]}: no table with the columns publisher and original_id ({error}); take it from "
      "the release again, or remove it"
    ) from None
