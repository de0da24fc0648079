import numpy as np
import pytest

from attn_unet_jax.cases.boxes import check_boxes, check_same_boxes, read_boxes, to_json
from attn_unet_jax.cases.fold import open_fold
from attn_unet_jax.cases.prepare import prepare_case
from attn_unet_jax.patches.sources import choose_source
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.box import Box
from tests.configs import with_keys

BOXES = {
  "a": Box((-10.1, -0.2, 1 / 3), (0.0, 2.0, 7.5)),
  "b": Box((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


def test_written_and_read_back_to_the_bit(tmp_path):
  path = tmp_path / "boxes.json"
  path.write_text(to_json(BOXES))
  assert read_boxes(path) == BOXES


@pytest.mark.parametrize(
  "text",
  [
    "",
    "[]",
    '{"a": [1, 2]}',
    '{"a": [[0, 0, 0], [1, 1]]}',
    '{"a": [[0, 0, 0], [1, 1, 0]]}',
    '{"a": "b"}',
    '{"a": [[-Infinity, 0, 0], [1, 1, 1]]}',
    '{"a": [[0, 0, 0], [1, 1, NaN]]}',
    '{"a": [[0, 0, 0], [1, 1, 1e308]]}',
    '{"a": [[0, 0, 0], [1, 1, 1%s]]}' % ("0" * 400),
  ],
)
def test_what_is_no_box_is_refused(tmp_path, text):
  path = tmp_path / "boxes.json"
  path.write_text(text)
  with pytest.raises(UserError, match=r"boxes\.json: (a|it) is not a box; write"):
    read_boxes(path)


def test_a_missing_file_or_case_is_named(tmp_path):
  with pytest.raises(UserError, match=r"none\.json: No such file"):
    read_boxes(tmp_path / "none.json")
  with pytest.raises(UserError, match="1 cases have no box, such as c"):
    check_boxes(BOXES, ["a", "c"], "boxes.json")


def test_a_run_does_not_go_on_with_other_boxes(tmp_path):
  path = tmp_path / "boxes.json"
  check_same_boxes(path, BOXES)  # the file has gone: the run has its own copy
  path.write_text(to_json({**BOXES, "c": BOXES["a"]}))
  check_same_boxes(path, BOXES)  # a box more is of no case of the run
  path.write_text(to_json({**BOXES, "b": BOXES["a"]}))
  with pytest.raises(UserError, match=r"the box of b differs from the one"):
    check_same_boxes(path, BOXES)


@pytest.fixture
def boxed(config, phantoms, tmp_path):
  """A fold of the phantoms whose boxes lie around a corner of each scan."""
  config = with_keys(config, {"data.dir": str(phantoms), "data.patch": (4, 4, 4)})
  whole = open_fold(config.data)
  boxes = {case: Box((-60.0, -60.0, -30.0), (10.0, 40.0, 20.0)) for case in whole.dataset.ids}
  path = tmp_path / "boxes.json"
  path.write_text(to_json(boxes))
  config = with_keys(config, {"data.boxes": str(path)})
  return config, whole, open_fold(config.data)


def test_cases_are_cut_to_their_boxes(boxed):
  config, whole, fold = boxed
  case, full = fold.load("training")[0], whole.load("training")[0]
  box = fold.boxes[case.id]
  grid_shape = np.array(full.image.shape)
  low = np.floor(np.array(box.low) / config.data.spacing_mm + grid_shape / 2).astype(int)
  high = np.ceil(np.array(box.high) / config.data.spacing_mm + grid_shape / 2).astype(int)
  where = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
  np.testing.assert_array_equal(case.image, full.image[where])
  np.testing.assert_array_equal(case.label, full.label[where])
  assert case.mean == pytest.approx(case.image.mean())
  assert case.mean != full.mean


def test_a_box_is_grown_to_the_patch(boxed):
  config, whole, _ = boxed
  config = with_keys(config, {"data.patch": (12, 4, 4)})
  fold = open_fold(config.data)
  assert fold.load("training")[0].image.shape[0] == min(
    12, whole.load("training")[0].image.shape[0]
  )


def test_the_set_is_measured_by_its_boxes(boxed):
  config, whole, fold = boxed
  config = with_keys(config, {"data.source": "auto"})
  cases = fold.load("training")
  extent = np.max([case.image.shape for case in cases], axis=0)
  assert cases.bytes_together() == len(cases) * int(extent.prod()) * 3
  assert cases.bytes_together() < whole.load("training").bytes_together()
  assert choose_source(config.data, cases)[0] == "resident"


def test_kept_cases_of_other_boxes_are_prepared_anew(boxed, tmp_path):
  config, whole, fold = boxed
  folder = tmp_path / "prepared"
  small, large = (f.load("training").cache_in(folder) for f in (fold, whole))
  assert small[0].image.shape != large[0].image.shape
  again = fold.load("training").cache_in(folder)[0]
  np.testing.assert_array_equal(again.image, small[0].image)
  assert len(list(folder.iterdir())) == 2
  config = with_keys(config, {"data.patch": (12, 4, 4)})  # to which a box is grown
  grown = open_fold(config.data).load("training").cache_in(folder)[0]
  assert grown.image.shape[0] > again.image.shape[0]


def test_a_box_outside_its_scan_names_the_case(boxed):
  config, _, fold = boxed
  case = fold.dataset.load(fold.split.training[0])
  far = Box((1e4, 0.0, 0.0), (2e4, 1.0, 1.0))
  with pytest.raises(UserError, match=f"the box of {case.id} lies outside the scan"):
    prepare_case(case, fold.mapping, config.data, far)


def test_the_boxes_that_a_run_wrote_hold(boxed, tmp_path):
  config, _, fold = boxed
  workdir = tmp_path / "run"
  workdir.mkdir()
  (workdir / "folds.json").write_text(fold.to_json())
  (workdir / "boxes.json").write_text(to_json(fold.boxes))
  (tmp_path / "boxes.json").unlink()
  assert open_fold(config.data, workdir / "folds.json").boxes == fold.boxes


def test_a_case_without_a_box_is_refused(boxed, tmp_path):
  config, _, fold = boxed
  gone = fold.split.validation[0]
  boxes = {case: box for case, box in fold.boxes.items() if case != gone}
  (tmp_path / "boxes.json").write_text(to_json(boxes))
  with pytest.raises(UserError, match=f"1 cases have no box, such as {gone}"):
    open_fold(config.data)
