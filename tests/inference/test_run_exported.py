"""The runner of exported networks does what a prediction does, with no code in common."""

import itertools
import json

import nibabel as nib
import numpy as np
import pytest
from nibabel import orientations
from scipy import ndimage

from attn_unet_jax.inference import run_exported as runner
from attn_unet_jax.inference.body import find_body, find_outside
from attn_unet_jax.inference.postprocess import Postprocessing, postprocess_mask
from attn_unet_jax.inference.segment import make_mask, predict_scan
from attn_unet_jax.inference.sliding import SlidingWindow
from attn_unet_jax.volumes.resample import resample_volume, working_grid
from attn_unet_jax.volumes.volume import Volume
from attn_unet_jax.workflows.export_run import _describe_scan
from attn_unet_jax.workflows.load_run import BestCheckpoint
from benchmarks.orientations import on_axes
from tests.configs import with_keys
from tests.drawn_ct import drawn_ct
from tests.inference.test_body import gas_beneath_skin, lying
from tests.inference.test_exported_window import OneConv


@pytest.mark.parametrize(
  ("shape", "old", "new"),
  [
    ((12, 9, 7), (0.7, 0.7, 2.5), 2.0),
    ((5, 6, 4), (3.0, 3.3, 5.0), 1.7),
    ((8, 8, 8), (1.0, 1.0, 1.0), 2.0),
    ((8, 7, 3), (2.0, 0.91, 40.0), 2.0),
  ],
)
def test_resampling_is_the_same_to_the_bit_both_ways(shape, old, new):
  values = np.random.default_rng(0).integers(-1000, 2000, shape).astype(np.int16)
  scan = Volume(values, np.diag([*old, 1.0]))
  grid = working_grid(scan.grid, new)
  expected = resample_volume(scan, grid)
  there = runner.resample(values, np.array(old), grid.shape, np.full(3, new))
  np.testing.assert_array_equal(there, expected.array)
  back = runner.resample(there, np.full(3, new), shape, np.array(old))
  np.testing.assert_array_equal(back, resample_volume(expected, scan.grid).array)


def bodies():
  yield drawn_ct()
  table = drawn_ct().array.copy()
  table[:2, :, 3:20] = 100  # a second piece that is not small
  table[38, 38, 20] = 500  # and one that is
  yield Volume(table, drawn_ct().affine)
  yield Volume(np.full((5, 6, 7), -1000, np.int16), np.eye(4))
  yield Volume(drawn_ct().array + 1024, drawn_ct().affine)


@pytest.mark.parametrize("scan", [*bodies()])
def test_the_body_is_found_where_a_prediction_finds_it(scan):
  expected = [(part.start, part.stop) for part in find_body(scan)]
  assert runner.find_body(scan.array, scan.spacing[0]) == expected


def people():
  yield from bodies()
  yield Volume(gas_beneath_skin()[0], np.diag([3.0, 3.0, 3.0, 1.0]))
  for mm in (1.5, 2.0, 3.0, 5.0, 9.0):
    hu, _ = lying(5, mm)
    yield Volume(hu, np.diag([mm, mm, mm, 1.0]))
    yield Volume(hu[: round(186 / mm), round(45 / mm) :], np.diag([mm, mm, mm, 1.0]))


@pytest.mark.parametrize("scan", [*people()])
def test_the_outside_is_what_a_prediction_leaves_out(scan):
  found = runner.find_outside(scan.array, scan.spacing[0])
  np.testing.assert_array_equal(found, find_outside(scan))


def test_pieces_that_are_half_air_are_outside_for_both():
  """Bodies of noise, of which no rule is met by far."""
  rng = np.random.default_rng(0)
  for _ in range(20):
    field = ndimage.gaussian_filter(rng.normal(0, 1, (24, 20, 6)), 1.5)
    hu = np.rint(field / field.std() * 500 - 500 + rng.normal(0, 100, field.shape))
    scan = Volume(hu.astype(np.int16), np.diag([3.0, 3.0, 3.0, 1.0]))
    found = runner.find_outside(scan.array, 3.0)
    np.testing.assert_array_equal(found, find_outside(scan))


@pytest.mark.parametrize(
  "steps",
  [
    Postprocessing(),
    Postprocessing(largest=True),
    Postprocessing(smallest_ml=0.9),
    Postprocessing(largest=True, smallest_ml=2.5, fill_holes=True),
    Postprocessing(fill_holes=True),
    Postprocessing(largest=True, smallest_ml=2.5, fill_holes=True, values=(3,)),
    Postprocessing(smallest_ml=0.9, fill_holes=True, values=(1, 3)),
  ],
)
def test_the_steps_after_the_network_are_the_same(steps):
  rng = np.random.default_rng(0)
  mask = rng.choice(4, (12, 11, 10), p=[0.3, 0.35, 0.3, 0.05]).astype(np.uint8)
  mask[mask == 2] = 0  # a class that is absent
  after = {**vars(steps), "one_piece": [], "largest_component": False}
  expected = postprocess_mask(mask, steps, 0.3)
  found = runner.keep_components(mask, np.ones(mask.shape), after, 0.3)
  np.testing.assert_array_equal(found, expected)


def answer_smoothly(hu, mean, sd, margin):
  """What is said of a window depends on each voxel's surroundings, and on where the window ends."""
  scaled = ndimage.uniform_filter((np.asarray(hu, np.float64) - mean) / sd, 5, mode="constant")
  logit = np.stack([0 * scaled + 0.8, 2 * scaled, 1 - scaled**2], -1)
  values = np.exp(logit) / np.exp(logit).sum(-1, keepdims=True)
  x, y, z = (slice(m, n - m) for m, n in zip(margin, hu.shape, strict=True))
  return values[x, y, z].astype(np.float32)


def predict_both(config, scan, monkeypatch, padding="SAME", steps=None):
  """The mask of a prediction, and that of the runner, with the same answers for windows."""
  module = OneConv(num_classes=3, padding=padding)
  margin = module.output_margin
  system = SlidingWindow(config, module)
  monkeypatch.setattr(system, "_compile", lambda _: 0)
  system.window = lambda _, hu, mean, sd: answer_smoothly(hu, mean, sd, margin)
  steps = steps or Postprocessing()
  expected = make_mask(predict_scan(scan, system, config), config, steps).array
  contract = _describe_scan(BestCheckpoint(config, ("a", "b"), module, {}, 1), steps)
  about = {**contract, "network": {"inputs": [1, 2, 3]}}
  image = nib.Nifti1Image(scan.array, scan.affine)
  found = runner.segment(
    image, about, lambda hu, mean, sd: answer_smoothly(hu[0], mean, sd, margin)[None]
  )
  return expected, found


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAL", "PIR"])
@pytest.mark.parametrize(
  ("keys", "padding"),
  [
    ({}, "SAME"),
    ({"data.patch": (24, 8, 40), "inference.overlap": 0.3}, "VALID"),
    ({"inference.window": "plan", "data.patch": (9, 8, 7), "data.spacing_mm": 11.0}, "SAME"),
    ({"data.labels": "a=1,b=2", "inference.one_piece": "b"}, "SAME"),
    ({"inference.within_body": True, "data.spacing_mm": 4.0, "data.patch": (40, 40, 24)}, "SAME"),
    (
      {"data.labels": "a=1,b=2", "inference.one_piece": "a", "inference.largest_component": True},
      "SAME",
    ),
    ({"data.blur_mm": 6.0, "data.spacing_mm": 7.3, "inference.largest_component": True}, "SAME"),
  ],
)
def test_masks_are_those_of_a_prediction(config, monkeypatch, axes, keys, padding):
  config = with_keys(config, keys)
  scan = on_axes(drawn_ct(), axes)
  expected, found = predict_both(config, scan, monkeypatch, padding)
  assert found.dtype == np.uint8
  assert {0, 1, 2} == set(np.unique(expected))
  np.testing.assert_array_equal(found, expected)


def test_a_threshold_for_one_class_is_that_of_a_prediction(config, monkeypatch):
  steps = Postprocessing(0.3, largest=True, values=(2,))
  expected, found = predict_both(config, drawn_ct(), monkeypatch, steps=steps)
  np.testing.assert_array_equal(found, expected)
  without, _ = predict_both(config, drawn_ct(), monkeypatch)
  assert (found != without).any()


def test_the_runner_keeps_organs_within_the_body(config, monkeypatch):
  """The network takes air for class 2, which is background there with the option alone."""
  config = with_keys(config, {"data.spacing_mm": 8.0, "data.patch": (40, 40, 24)})
  image = drawn_ct()
  plain, _ = predict_both(config, image, monkeypatch)
  config = with_keys(config, {"inference.within_body": True})
  expected, found = predict_both(config, image, monkeypatch)
  np.testing.assert_array_equal(found, expected)
  outside = find_outside(image)
  np.testing.assert_array_equal(found, np.where(outside, 0, plain))
  assert np.count_nonzero(plain[outside]) > 1000


def test_windows_within_the_body_leave_out_air(config, monkeypatch):
  """Else the test above would not see whether the runner looks for the body."""
  config = with_keys(config, {"inference.window": "plan", "data.patch": (9, 8, 7)})
  wide = np.pad(drawn_ct().array, 12, constant_values=-1000)
  scan, asked = Volume(wide, drawn_ct().affine), []
  monkeypatch.setattr(
    runner, "find_body", lambda *args, real=runner.find_body: asked.append(args) or real(*args)
  )
  expected, found = predict_both(config, scan, monkeypatch, steps=Postprocessing(0.3))
  np.testing.assert_array_equal(found, expected)
  assert len(asked) == 1
  assert not found[:4].any()


def test_a_mask_comes_back_from_all_orientations(config, monkeypatch):
  config = with_keys(config, {"data.spacing_mm": 20.0, "data.patch": (40, 40, 24)})
  masks = []
  for order in itertools.islice(itertools.permutations("RAS"), 0, 6, 2):
    scan = on_axes(drawn_ct(), "".join(order))
    _, found = predict_both(config, scan, monkeypatch)
    turn = orientations.io_orientation(scan.affine)
    masks.append(orientations.apply_orientation(found, turn))
  for mask in masks[1:]:
    np.testing.assert_array_equal(mask, masks[0])


def test_a_scan_of_a_tilted_gantry_is_refused():
  affine = np.diag([2.0, 2.0, 4.0, 1.0])
  affine[1, 2] = 1.0
  with pytest.raises(SystemExit, match="not perpendicular"):
    runner.segment(nib.Nifti1Image(np.zeros((8, 8, 8), np.int16), affine), {}, lambda hu: hu)


@pytest.fixture
def scan(tmp_path, monkeypatch):
  """A file, of which everything is the pancreas."""
  about = {"classes": {"background": 0, "pancreas": 1}}
  (tmp_path / "network.json").write_text(json.dumps(about))
  monkeypatch.setattr(runner, "open_network", lambda *_: None)
  monkeypatch.setattr(runner, "segment", lambda image, *_: np.ones(image.shape, np.uint8))
  path = tmp_path / "scan.nii.gz"
  nib.save(nib.Nifti1Image(np.full((4, 4, 4), 40, np.int16), np.eye(4)), path)
  return path


def _run(scan, mask):
  runner.main(str(scan), str(mask), str(scan.with_name("network.stablehlo")))


def test_a_mask_does_not_overwrite_its_scan(scan):
  before = scan.read_bytes()
  link = scan.with_name("link.nii.gz")
  link.symlink_to(scan)
  for mask in (scan, link, scan.parent / ".." / scan.parent.name / scan.name):
    with pytest.raises(SystemExit, match="is the scan, which its mask would overwrite"):
      _run(scan, mask)
  assert scan.read_bytes() == before


def test_a_mask_of_another_kind_is_refused_before_the_work(scan, monkeypatch):
  monkeypatch.setattr(runner, "segment", None)
  with pytest.raises(SystemExit, match=r"mask: a mask is NIfTI: name a file that ends in \.nii or"):
    _run(scan, scan.with_name("mask"))


@pytest.mark.parametrize("name", ["mask.nii", "mask.nii.gz"])
def test_a_mask_is_written_as_a_whole_or_not_at_all(name, scan, monkeypatch):
  mask = scan.with_name(name)
  _run(scan, mask)
  assert (np.asanyarray(nib.load(mask).dataobj) == 1).all()
  before, files = mask.read_bytes(), sorted(scan.parent.iterdir())
  assert files == sorted([scan, mask, scan.with_name("network.json")])

  def save_half(_, path):
    path.write_bytes(b"half")
    raise OSError("no space left")

  monkeypatch.setattr(nib, "save", save_half)
  with pytest.raises(OSError, match="no space left"):
    _run(scan, mask)
  assert mask.read_bytes() == before
  assert sorted(scan.parent.iterdir()) == files
