import json
import os
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest

from attn_unet_jax.runtime.errors import UserError
from tfds_pancreas.abdomen.organs import ORGANS
from tfds_pancreas.build_dataset import build_dataset
from tfds_pancreas.phantom_ct import phantom_case
from tfds_pancreas.phantom_ct.phantom_ct_dataset_builder import Builder
from tfds_pancreas.records import find_built_version, open_records

TINY = "phantom_ct/tiny"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  path = tmp_path_factory.mktemp("data")
  build_dataset(TINY, path)
  return path


def test_what_is_read_is_what_was_drawn(data_dir):
  records = open_records(TINY, data_dir)
  sizes = {name: len(split) for name, split in records.splits.items()}
  assert sizes == {"train": 4, "validation": 2, "test": 2}
  assert records.labels == ORGANS
  drawn = phantom_case.draw_phantom_record(5, Builder.builder_configs["tiny"])
  read = records.splits["validation"][1]
  assert set(read) == set(drawn)
  assert read["id"] == drawn["id"] == "phantom_0005"
  for key, dtype in (("image", np.int16), ("label", np.uint8), ("affine", np.float64)):
    assert read[key].dtype == dtype
    np.testing.assert_array_equal(read[key], drawn[key])


def test_ids_are_sorted_and_unique(data_dir):
  splits = open_records(TINY, data_dir).splits
  ids = [case for split in splits.values() for case in split.case_ids]
  assert sorted(ids) == [f"phantom_{i:04d}" for i in range(8)]
  assert splits["train"].case_ids == sorted(splits["train"].case_ids)
  assert [record["id"] for record in splits["train"]] == splits["train"].case_ids
  assert [record["id"] for record in splits["train"][-2:]] == splits["train"].case_ids[-2:]


def test_every_organ_survives_the_coarse_grid(data_dir):
  for record in open_records(TINY, data_dir).splits["train"]:
    assert set(np.unique(record["label"])) >= {ORGANS[o] for o in ("pancreas", "liver", "aorta")}


def test_the_records_are_sharded_and_the_labels_travel_with_them(data_dir):
  directory = find_built_version(TINY, data_dir)
  assert len(list(directory.glob("*-train.array_record-*"))) == 2
  assert json.loads((directory / "metadata.json").read_text())["labels"] == ORGANS


def test_a_second_build_leaves_the_first_alone(data_dir):
  before = {p: p.stat().st_mtime_ns for p in find_built_version(TINY, data_dir).iterdir()}
  assert build_dataset(TINY, data_dir) == find_built_version(TINY, data_dir)
  assert {p: p.stat().st_mtime_ns for p in before} == before


def test_an_interrupted_build_is_no_data_set(tmp_path, monkeypatch):
  def raise_interrupt(number, config):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(phantom_case, "draw_phantom_record", raise_interrupt)
    with pytest.raises(KeyboardInterrupt):
      build_dataset(TINY, tmp_path, workers=1)
  assert find_built_version(TINY, tmp_path) is None
  assert find_built_version(TINY, build_dataset(TINY, tmp_path).parents[2]) is not None


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path):
  limit = resource.getrlimit(resource.RLIMIT_FSIZE)
  handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limit[1]))  # bytes a file may have
  try:
    with pytest.raises(UserError, match=r"cannot be written .*File too large"):
      build_dataset(TINY, tmp_path, workers=1)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    signal.signal(signal.SIGXFSZ, handler)
  assert list((tmp_path / TINY).iterdir()) == []


def test_reading_before_building_names_the_command(tmp_path):
  with pytest.raises(UserError, match=r"python -m tfds_pancreas.build --dataset=phantom_ct/demo"):
    open_records("phantom_ct/demo", tmp_path)


@pytest.mark.parametrize("dataset", ["phantom_ct/huge", "phantom_ct", "pancreas"])
def test_an_unknown_data_set_is_refused_with_the_known_ones(dataset, tmp_path):
  told = "phantom_ct/tiny, phantom_ct/demo, pancreas_ct/native, .*, pancreas_ct/iso<k>mm, "
  with pytest.raises(UserError, match=told):
    build_dataset(dataset, tmp_path)


def test_workers_are_not_for_beam(tmp_path):
  with pytest.raises(UserError, match="with Beam, set the number by --beam_options"):
    build_dataset(TINY, tmp_path, workers=2, beam_runner="DirectRunner")


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="cannot be written"):
    build_dataset(TINY, tmp_path / "file" / "below")


def test_the_command_ends_with_2_and_one_line_for_a_wrong_data_set(tmp_path):
  command = [sys.executable, "-m", "tfds_pancreas.build"]
  flags = ["--dataset=phantom_ct/huge", f"--data_dir={tmp_path}"]
  done = subprocess.run(command + flags, capture_output=True, text=True, env=os.environ)
  assert (done.returncode, done.stdout) == (2, "")
  assert done.stderr.startswith("error: ")
  assert done.stderr.count("\n") == 1
