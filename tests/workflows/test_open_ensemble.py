"""Several runs are opened as one, or refused by what does not fit."""

from pathlib import Path

import numpy as np
import pytest

from attn_unet_jax.config.schema import replace_keys
from attn_unet_jax.inference.postprocess import UNCHANGED, Postprocessing
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.volume import Volume
from attn_unet_jax.workflows import open_ensemble as module
from attn_unet_jax.workflows.load_run import LoadedRun
from attn_unet_jax.workflows.open_ensemble import open_ensemble, split_workdirs
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
  assert split_workdirs("a") == [Path("a")]
  assert split_workdirs("a, b/c") == [Path("a"), Path("b/c")]
  Path("a,b").mkdir()
  assert split_workdirs("a,b") == [Path("a,b")]


@pytest.mark.parametrize(("text", "said"), [("a,,b", "an empty name"), ("a,b,a", "there twice")])
def test_lists_that_make_no_sense_are_refused(text, said):
  with pytest.raises(UserError, match=said):
    split_workdirs(text)
