"""Several runs are opened as one, or refused by what does not fit."""

from pathlib import Path

import numpy as np
import pytest

from attn_unet_jax.config.build import replace_keys
from attn_unet_jax.inference.postprocess import UNCHANGED, Postprocessing
from attn_unet_jax.inference.quality import QualityModel
from attn_unet_jax.inference.segment import ScanProbabilities
from attn_unet_jax.runs.builtin import find_runs
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.volume import Grid, Volume
from attn_unet_jax.workflows import open_ensemble as module
from attn_unet_jax.workflows.load_run import LoadedRun
from attn_unet_jax.workflows.open_ensemble import open_ensemble
from tests.configs import small_config

FILLED = Postprocessing(fill_holes=True)


class Constant:
  def __init__(self, value):
    self.value = value

  def predict(self, volume):
    return np.full((*volume.shape, 2), self.value, np.float32)


@pytest.fixture
def open_runs(monkeypatch):
  """Opens runs that differ by what is given for each."""

  def open_them(*changes):
    runs = {}
    for index, change in enumerate(changes):
      keys = {key: value for key, value in change.items() if "." in key}
      others = {key: value for key, value in change.items() if "." not in key}
      fields = {"classes": ("pancreas",), "step": index, "digest": f"d{index}", **others}
      config = replace_keys(small_config(), keys)
      runs[Path(f"run{index}")] = LoadedRun(config=config, system=Constant(index), **fields)
    monkeypatch.setattr(module, "expand_fold_runs", list)
    monkeypatch.setattr(module, "open_run_or_stages", runs.__getitem__)
    return open_ensemble(list(runs))

  return open_them


def test_probabilities_of_runs_are_averaged(open_runs):
  joined = open_runs({}, {}, {})
  found = joined.system.predict(Volume(np.zeros((2, 2, 2), np.int16), np.eye(4)))
  np.testing.assert_allclose(found, 1)  # of 0, 1 and 2
  assert joined.classes == ("pancreas",)


def test_what_an_ensemble_expects_is_at_most_how_far_its_members_agree(open_runs):
  model = QualityModel()
  joined = open_runs({"quality": {"pancreas": model}}, {"quality": {"pancreas": model}})
  grid = Grid((1, 1, 2), np.eye(4))
  answers = [np.array([[[[0.0, 1.0], [b, 1 - b]]]], np.float32) for b in (0.1, 0.8)]
  for network, answer in zip(joined.system.members, answers, strict=True):
    network.predict = lambda _, answer=answer: answer
  volume = Volume(np.zeros((1, 1, 2), np.int16), np.eye(4))
  for _ in range(2):  # the first scan is not counted in the second
    joined.forget_agreement()
    found = ScanProbabilities(joined.system.predict(volume), grid, grid, grid, None)
    expected = joined.estimate_quality(found)["pancreas"].expected_dsc
    # The mean sees both voxels, and so does the first member; the second sees one.
    assert expected == pytest.approx(min(2 * 1.55 / 3.55, (1 + 2 / 3) / 2))


def test_one_run_is_itself(open_runs):
  assert open_runs({}).system.value == 0


def test_an_ensemble_is_another_than_its_members(open_runs):
  joined = open_runs({}, {})
  assert joined.digest not in ("", "d0", "d1")
  assert open_runs({}, {"digest": ""}).digest == ""


def test_steps_after_the_network_are_taken_where_all_chose_them(open_runs, capsys):
  assert open_runs({"postprocessing": FILLED}, {"postprocessing": FILLED}).postprocessing == FILLED
  assert "different" not in capsys.readouterr().out
  assert open_runs({"postprocessing": FILLED}, {}).postprocessing == UNCHANGED
  assert "chose different ones" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("change", "said"),
  [
    ({"classes": ("liver",)}, "run1: has the classes liver, and run0 has pancreas"),
    ({"data.spacing_mm": 3.5}, "run1: has data.spacing_mm=3.5, and run0 has"),
    ({"inference.largest_component": True}, "inference.largest_component=True"),
    ({"inference.within_body": True}, "inference.within_body=True"),
    ({"data.boxes": "boxes.json"}, "data.boxes=True"),
  ],
)
def test_runs_that_do_not_fit_are_refused(open_runs, change, said):
  with pytest.raises(UserError) as refused:
    open_runs({}, change)
  assert said in str(refused.value)


def test_runs_inside_boxes_are_refused(open_runs):
  with pytest.raises(UserError, match="run0: works inside boxes"):
    open_runs({"data.boxes": "a.json"}, {"data.boxes": "b.json"})


def test_workdirs_are_divided_by_commas(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert find_runs("a") == [Path("a")]
  assert find_runs("a, b/c") == [Path("a"), Path("b/c")]
  Path("a,b").mkdir()
  assert find_runs("a,b") == [Path("a,b")]


@pytest.mark.parametrize(("text", "said"), [("a,,b", "an empty name"), ("a,b,a", "there twice")])
def test_lists_that_make_no_sense_are_refused(text, said):
  with pytest.raises(UserError, match=said):
    find_runs(text)
