import zlib

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tfds_pancreas.case_parts import (
  CasePart,
  MadeCase,
  PartWriter,
  ShardPlan,
  count_finished_parts,
  divide_into_shards,
  encode_record,
  read_part,
  write_shard,
)
from tfds_pancreas.contact_sheet import TILE
from tfds_pancreas.phantom_ct.phantom_ct_dataset_builder import Builder


def draw_record():
  rng = np.random.default_rng(0)
  return {
    "id": "a",
    "image": rng.integers(-1000, 1000, (5, 6, 7)).astype(np.int16),
    "label": rng.integers(0, 3, (5, 6, 7)).astype(np.uint8),
    "affine": rng.normal(size=(4, 4)),
  }


@pytest.fixture(scope="module")
def features(tmp_path_factory):
  return Builder(config="tiny", data_dir=tmp_path_factory.mktemp("none")).info.features


def test_a_record_is_encoded_as_tfds_does_but_for_the_level_of_zlib(features):
  record = draw_record()
  record["image"] = record["image"][::-1].swapaxes(0, 2)  # as canonical axes leave it
  ours, theirs = encode_record(record), features.encode_example(record)
  assert ours.keys() == theirs.keys()
  assert ours["id"].decode() == theirs["id"]
  assert zlib.decompress(ours["affine"]) == zlib.decompress(theirs["affine"])
  for name in ("image", "label"):
    assert tuple(ours[name]["shape"]) == tuple(theirs[name]["shape"])
    assert zlib.decompress(ours[name]["value"]) == zlib.decompress(theirs[name]["value"])


@pytest.mark.parametrize(
  ("name", "array"), [("image", np.zeros((2, 2, 2))), ("label", np.zeros((2, 2), np.uint8))]
)
def test_arrays_of_another_form_are_no_record(name, array):
  with pytest.raises(ValueError, match=f"a: {name} is "):
    encode_record(draw_record() | {name: array})


def test_a_part_is_complete_once_all_of_it_is_there(features, tmp_path):
  picture = np.random.default_rng(1).integers(0, 255, (TILE, TILE, 3)).astype(np.uint8)
  made = {
    "good": MadeCase("good", draw_record(), {"mm": 1.5}, [], picture),
    "bad": MadeCase("bad", None, {}, ["no label"]),
  }
  serializer = tfds.core.ExampleSerializer(features.get_serialized_info())
  write = PartWriter(made.__getitem__, serializer, tmp_path)
  write((0, "bad"))
  assert count_finished_parts(tmp_path) == 1
  write((12, "good"))
  write((12, "good"))  # a runner may have it done again
  assert count_finished_parts(tmp_path) == 2
  good, bad = read_part(tmp_path, 12), read_part(tmp_path, 0)
  assert (good.id, good.figures, good.problems) == ("good", {"mm": 1.5}, [])
  np.testing.assert_array_equal(good.picture, picture)
  assert good.size == (tmp_path / "000012.record").stat().st_size > 0
  assert (bad.size, bad.problems) == (0, ["no label"])
  assert len(list(tmp_path.iterdir())) == 5  # nothing unfinished


def some_parts(sizes):
  return [CasePart(case, size, {}, [], None) for case, size in sizes.items()]


@pytest.mark.parametrize(
  ("shards", "ids"),
  [(1, ["abcde"]), (2, ["ab", "cde"]), (4, ["a", "b", "cd", "e"]), (9, list("abcde"))],
)
def test_parts_are_divided_evenly_in_the_order_of_their_ids(shards, ids):
  divided = divide_into_shards(some_parts(dict.fromkeys("ecbad", 1)), shards)
  assert ["".join(part.id for part in mine) for mine in divided] == ids


def test_without_a_number_a_shard_has_256_mb():
  mb = 1 << 20
  assert len(divide_into_shards(some_parts({"a": 10 * mb, "b": 200 * mb}), None)) == 1
  assert len(divide_into_shards(some_parts(dict.fromkeys("abcdefgh", 65 * mb)), None)) == 3


def shard_of(folder, names):
  parts = []
  for number, name in enumerate(names):
    (folder / f"{number:06d}.record").write_bytes(name.encode())
    parts.append(CasePart(name, len(name), {}, [], folder / f"{number:06d}"))
  return ShardPlan(folder / "x.array_record", parts)


def test_a_shard_holds_its_parts_and_takes_their_place(tmp_path):
  from array_record.python.array_record_module import ArrayRecordReader

  shard = shard_of(tmp_path, ["one", "two"])
  write_shard(shard)
  write_shard(shard)  # done twice, it is still the same
  reader = ArrayRecordReader(str(shard.path))
  assert reader.read_all() == [b"one", b"two"]
  reader.close()
  assert [path.name for path in tmp_path.iterdir()] == ["x.array_record"]


def test_a_full_disk_is_an_os_error(tmp_path, monkeypatch):
  import resource
  import signal

  shard = shard_of(tmp_path, ["0123456789" * 1000])
  limit = resource.getrlimit(resource.RLIMIT_FSIZE)
  handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  resource.setrlimit(resource.RLIMIT_FSIZE, (20, limit[1]))
  try:
    with pytest.raises(OSError, match="File too large"):
      write_shard(shard)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    signal.signal(signal.SIGXFSZ, handler)
  assert not shard.path.exists()


def test_figures_must_fit_json(features, tmp_path):
  serializer = tfds.core.ExampleSerializer(features.get_serialized_info())
  write = PartWriter(
    lambda _: MadeCase("a", None, {"n": np.int64(1)}, ["bad"]), serializer, tmp_path
  )
  with pytest.raises(TypeError, match="int64 is not JSON"):
    write((0, None))
  assert count_finished_parts(tmp_path) == 0
