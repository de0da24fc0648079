"""The base of all builders of real scans, by a small builder of its own."""

import functools
import json
import sys
from typing import ClassVar, NamedTuple

import numpy as np
import pytest
import tensorflow_datasets as tfds

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.volume import Volume
from tfds_pancreas.checked_builder import CheckedBuilder
from tfds_pancreas.checked_case import CheckedCase, VolumePair
from tfds_pancreas.records import REPORT_FILE, open_records


class NumberedCase(NamedTuple):
  id: str
  number: int


def read_numbered(case, offset):
  """Makes up a case; one of a negative number is bad."""
  if case.number < 0:
    return CheckedCase(case.id, problems=[f"number {case.number}"], figures={"n": case.number})
  if case.number == 0:
    raise ZeroDivisionError
  image = np.full((3, 4, 5), case.number + offset, np.int16)
  label = np.eye(4, 5, dtype=np.uint8)[None].repeat(3, axis=0) * 2
  affine = np.diag([1.0, 2.0, 3.0, 1.0])
  return CheckedCase(case.id, VolumePair(Volume(image, affine), Volume(label, affine)), {"n": 1})


class Made(CheckedBuilder):
  """Numbers as scans, in two splits."""

  VERSION = tfds.core.Version("1.0.0")
  DESCRIPTION = "For tests."
  LABELS: ClassVar = {"liver": 2}
  RULES: ClassVar = {"least": 0}
  MANUAL_DOWNLOAD_INSTRUCTIONS = "Numbers."
  numbers: ClassVar = {"train": {"scan3a": 3, "scan1": 1, "b": 7, "out": -9}, "test": {"x": 20}}

  def find_cases(self, root):
    return {
      split: [NumberedCase(*case) for case in cases.items()]
      for split, cases in self.numbers.items()
    }

  def get_case_reader(self):
    return functools.partial(read_numbered, offset=100)

  @property
  def case_exclusions(self):
    return {"out": "never good"}

  @property
  def collection_ids(self):
    return ["scan1", "scan2"]


def build_made(folder, numbers=None, beam=None, workers=1, config="native", **options):
  builder = Made(config=config, data_dir=folder, workers=workers, **options)
  builder.numbers = numbers or Made.numbers
  settings = tfds.download.DownloadConfig(manual_dir=folder, beam_runner=beam)
  builder.download_and_prepare(download_dir=folder / "none", download_config=settings)
  return builder.data_path


@pytest.fixture(scope="module")
def made_dataset(tmp_path_factory):
  folder = tmp_path_factory.mktemp("made")
  return folder, build_made(folder)


def test_every_split_has_its_cases_and_the_labels_have_names(made_dataset):
  records = open_records("made/native", made_dataset[0])
  assert records.labels == {"liver": 2}
  assert {name: split.case_ids for name, split in records.splits.items()} == {
    "train": ["b", "scan1", "scan3a"],
    "test": ["x"],
  }
  assert [int(record["image"][0, 0, 0]) for record in records.splits["train"]] == [107, 101, 103]


def test_the_report_is_about_all_splits(made_dataset):
  report = json.loads((made_dataset[1] / REPORT_FILE).read_text())
  assert report["dataset"] == "made/native"
  assert report["rules"] == {"least": 0}
  assert sorted(report["built"]) == ["b", "scan1", "scan3a", "x"]
  assert report["excluded"] == {"out": "never good"}
  assert report["absent"] == ["scan2"]


@pytest.mark.parametrize("how", [{"workers": 2}, {"beam": "DirectRunner"}], ids=str)
def test_many_workers_and_beam_write_the_same_bytes_as_one(how, made_dataset, tmp_path):
  many = build_made(tmp_path, **how)
  files = sorted(path.name for path in made_dataset[1].iterdir())
  assert len(files) == 7  # two shards, a page, the report, and three of TFDS
  assert sorted(path.name for path in many.iterdir()) == files
  for name in files:
    assert (many / name).read_bytes() == (made_dataset[1] / name).read_bytes(), name
  assert "tensorflow" not in sys.modules


def test_nothing_else_is_left_in_the_folders(made_dataset):
  assert [path.name for path in made_dataset[1].parent.iterdir()] == ["1.0.0"]


def test_a_split_without_a_good_case_is_left_out(tmp_path):
  build_made(tmp_path, {"train": {"a": 1}, "test": {"b": -1}}, skip_bad_cases=True)
  assert list(open_records("made/native", tmp_path).splits) == ["train"]


def test_bad_cases_of_all_splits_are_named_at_once(tmp_path):
  numbers = {"train": {"a": -1, "b": 2}, "test": {"c": 3, "d": -4}}
  with pytest.raises(UserError, match=r"2 of 4 cases.*a: number -1 \| d: number -4"):
    build_made(tmp_path, numbers)
  folder = build_made(tmp_path, numbers, skip_bad_cases=True)
  report = json.loads((folder / REPORT_FILE).read_text())
  assert report["left_out"]["d"] == {"problems": ["number -4"], "figures": {"n": -4}}


def test_a_grid_that_memory_cannot_hold_is_what_is_wrong_with_a_case(tmp_path):
  config = Made.make_config("iso0.0001mm")
  with pytest.raises(UserError, match=r"a: the scan: voxels of 0.0001 mm in its field of 3 x 8 x"):
    build_made(tmp_path, {"train": {"a": 1}}, config=config)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_mistake_of_ours_names_the_case(workers, tmp_path):
  with pytest.raises(ZeroDivisionError) as caught:
    build_made(tmp_path, {"train": {"a": 1, "b": 0}}, workers=workers)
  assert caught.value.__notes__ == ["while making b"]
  assert list((tmp_path / "made/native").iterdir()) == []


def test_a_case_that_is_there_twice_is_refused(tmp_path):
  with pytest.raises(UserError, match=r"1 cases are there twice: \['a'\]"):
    build_made(tmp_path, {"train": {"a": 1}, "test": {"a": 2}})
