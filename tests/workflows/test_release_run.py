"""Releases: what is written, what is refused, and that one is a run to every command."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn_unet_jax
from attn_unet_jax.config.build import replace_keys
from attn_unet_jax.config.stored import load_config
from attn_unet_jax.evaluation.choose_steps import ChosenSteps
from attn_unet_jax.evaluation.compared_runs import read_run
from attn_unet_jax.evaluation.overlap import count_voxels, dice_score
from attn_unet_jax.evaluation.scoring import write_scores
from attn_unet_jax.inference.postprocess import Postprocessing
from attn_unet_jax.inference.quality import QualityModel
from attn_unet_jax.runs import builtin
from attn_unet_jax.runs.builtin import find_runs
from attn_unet_jax.runs.release import RECORD, is_release, read_release
from attn_unet_jax.runtime.arrays import save_arrays
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.training.checkpoint import open_checkpoints
from attn_unet_jax.training.state import abstract_state
from attn_unet_jax.volumes.nifti import write_nifti
from attn_unet_jax.volumes.volume import Volume
from attn_unet_jax.workflows import release_run as workflow
from attn_unet_jax.workflows.export_run import export_run
from attn_unet_jax.workflows.load_run import load_best
from attn_unet_jax.workflows.network import build_run_network
from attn_unet_jax.workflows.open_ensemble import open_ensemble
from attn_unet_jax.workflows.options import AnswerOptions, EngineOptions
from attn_unet_jax.workflows.other_dataset import open_other_for_runs
from attn_unet_jax.workflows.quality_record import write_quality
from attn_unet_jax.workflows.release_run import release_run
from attn_unet_jax.workflows.run_folder import open_run_folder
from attn_unet_jax.workflows.segment_scans import segment_scans
from attn_unet_jax.workflows.starting_run import open_starting_run
from attn_unet_jax.workflows.steps_record import write_record
from tests.configs import SMALLEST, small_config, with_keys
from tests.conftest import ROOT, flip_a_bit
from tests.drawn_ct import drawn_ct

STEP = 7
FOLD = {"training": ["SECRET1"], "validation": ["SECRET2"], "test": ["SECRET3"]}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A run of the smallest network, with drawn parameters, tested."""
  places = {"data.dir": "/secret/place", "data.dataset": "phantom_ct/tiny"}
  config = small_config(**SMALLEST, **places, **{"inference.postprocess": "validation"})
  workdir = tmp_path_factory.mktemp("runs") / "a"
  rng = np.random.default_rng(0)
  state = jax.tree.map(
    lambda a: jnp.asarray(np.abs(rng.normal(size=a.shape)), a.dtype),
    abstract_state(config, build_run_network(config, 2)),
  ).replace(step=jnp.array(STEP, jnp.int32))
  open_run_folder(workdir, config)
  with open_checkpoints(workdir / "checkpoints", 1) as store:
    store.save(state, validation_dsc=0.5)
  (workdir / "folds.json").write_text(json.dumps({"name": "own", "folds": [FOLD]}))
  rows = {"SECRET3": {"pancreas": {"dsc": 0.5, "volume_ml": 1.0, "reference_volume_ml": 1.0}}}
  steps = Postprocessing(largest=True)
  about = {"part": "test", "checkpoint_step": STEP, "postprocessing": dataclasses.asdict(steps)}
  write_scores(rows, workdir / "evaluation", about)
  write_record(workdir, ChosenSteps(steps, 0.5, 0.6, 1), STEP)
  write_quality(workdir, {"pancreas": QualityModel()}, STEP)
  return workdir


@pytest.fixture(scope="module")
def made(run, tmp_path_factory):
  """The folder of the program's networks, with a release of that run in it."""
  folder = tmp_path_factory.mktemp("builtin")
  release_run([run], folder / "tiny", "CC BY-SA 4.0", "a drawn phantom")
  return folder


@pytest.fixture
def shipped(made, tmp_path, monkeypatch):
  """A copy of it, to be damaged; the name is `builtin:tiny`."""
  folder = tmp_path / "package"
  shutil.copytree(made, folder)
  monkeypatch.setattr(builtin, "FOLDER", folder)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  return folder


def _scan(path):
  write_nifti(path, drawn_ct())
  return path


def _contents(folder):
  return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_release_has_all_that_predicts_and_no_names_of_cases_or_places(made):
  files = _contents(made / "tiny")
  assert {str(path.relative_to(made / "tiny")) for path in files} == {
    *("parameters.npz", "config.json", "evaluation/summary.json", "MODEL_CARD.md", "LICENCE.txt"),
    *("postprocess.json", "quality.json", RECORD),
  }
  for path, content in files.items():
    assert b"SECRET" not in content, path
    assert b"/secret" not in content, path
  card = files[made / "tiny" / "MODEL_CARD.md"].decode()
  for said in (
    "# Model card: tiny",
    "Not a medical device.",
    "do not diagnose, plan, treat or measure a patient",
    "| trained on, in its makers' words | a drawn phantom |",
    "| licence of the network's values | CC BY-SA 4.0; the program's is Apache-2.0 |",
    "| rounded to 16 bits | probabilities differ by ",
  ):
    assert said in card
  assert "under CC BY-SA 4.0." in files[made / "tiny" / "LICENCE.txt"].decode()
  release = read_release(made / "tiny")
  assert release.test_dsc == {"pancreas": 0.5}
  assert release.find_seen(["SECRET3", "SECRET2", "other"]) == ["SECRET2"]


def test_a_release_is_opened_like_its_run(run, shipped):
  own, other = open_ensemble([run]), open_ensemble(find_runs("builtin:tiny"))
  assert (other.step, other.classes) == (own.step, own.classes)
  assert other.postprocessing == own.postprocessing == Postprocessing(largest=True)
  assert other.quality == own.quality
  kept = other.networks[0].found.variables
  for path, values in jax.tree_util.tree_leaves_with_path(own.networks[0].found.variables):
    found = kept
    for key in path:
      found = found[key.key]
    assert found.dtype == values.dtype
    exact = values.ndim < 2
    np.testing.assert_allclose(found, values, rtol=0 if exact else 2**-11, atol=1e-7)


def test_rounding_moves_no_score(run, shipped):
  """The same DSC to 0.002, and what the release says of its probabilities holds."""
  said = read_release(shipped / "tiny").rounding
  assert said["voxels"] == 4 * 16**3
  scan = drawn_ct()
  masks = [
    attn_unet_jax.segment(scan, attn_unet_jax.load_run(name)).array
    for name in (run, "builtin:tiny")
  ]
  truth = scan.array > np.quantile(scan.array, 0.9)
  own, other = (dice_score(count_voxels(mask == 1, truth)) for mask in masks)
  assert masks[0].any()
  assert other == pytest.approx(own, abs=0.002)
  zero = jax.tree.map(jnp.zeros_like, load_best(run).variables)
  assert workflow.measure_rounding(load_best(run), zero)["largest_difference"] > 0.01


def test_predict_writes_nothing_into_the_release_and_calls_it_by_its_name(shipped, tmp_path):
  before = _contents(shipped)
  scan, mask = _scan(tmp_path / "a.nii.gz"), tmp_path / "out" / "a.nii.gz"
  options = AnswerOptions(as_json=True, engine=EngineOptions("auto"))
  segment_scans(find_runs("builtin:tiny"), scan, mask, options)
  assert json.loads((tmp_path / "out" / "a.json").read_text())["run"] == "builtin:tiny"
  assert _contents(shipped) == before


def test_what_is_written_for_openvino_goes_to_the_users_folder(shipped, tmp_path):
  from attn_unet_jax.workflows.use_engine import FOLDER, _list_folders

  assert [*_list_folders(shipped / "tiny")] == [tmp_path / "cache" / "attn_unet_jax" / FOLDER]


def test_a_run_starts_from_a_release(run, shipped, capsys):
  config = with_keys(load_config(run / "config.json"), {"init.workdir": "builtin:tiny"})
  origin = open_starting_run(config, build_run_network(config, 2))
  assert origin.make_record()["workdir"] == "builtin:tiny"
  assert str(origin).startswith(f"step {STEP} of builtin:tiny: background, pancreas")
  assert capsys.readouterr().out.startswith("builtin:tiny: segments pancreas; trained on a drawn ")
  unknown = replace_keys(config, {"init.workdir": "builtin:other"})
  with pytest.raises(UserError, match=r"^builtin:other: no such network; there are builtin:tiny"):
    open_starting_run(unknown, build_run_network(config, 2))


def test_a_release_can_be_exported_with_its_licence_and_card(shipped, tmp_path):
  config = json.loads((shipped / "tiny" / "config.json").read_text())
  assert config["inference"]["window"] in ("patch", "plan")
  export_run(find_runs("builtin:tiny"), tmp_path / "exported")
  said = json.loads((tmp_path / "exported" / "network.json").read_text())
  assert said["licence"].endswith("the network's is CC BY-SA 4.0")
  assert said["runs"][0]["test_scores"]["cases"] == 1
  assert (tmp_path / "exported" / "MODEL_CARD.md").read_text().startswith("# Model card: tiny")


def test_another_data_set_says_which_cases_a_release_has_seen(shipped, tmp_path):
  for name in ("SECRET1", "new"):
    for part in ("imagesTr", "labelsTr"):
      (tmp_path / "DATA" / part).mkdir(parents=True, exist_ok=True)
      values = np.zeros((4, 4, 4), np.int16)
      write_nifti(tmp_path / "DATA" / part / f"{name}.nii.gz", Volume(values, np.eye(4)))
  release = shipped / "tiny"
  config = load_config(release / "config.json")
  other = open_other_for_runs([release], config, {"folder": str(tmp_path / "DATA")}, None)
  assert other.about["seen_in_training"] == ["SECRET1"]


def _flip(folder):
  flip_a_bit(folder / "parameters.npz")


def _change_spacing(folder):
  path = folder / "config.json"
  path.write_text(path.read_text().replace('"spacing_mm": 10.0', '"spacing_mm": 11.0'))


def _cut(folder):
  (folder / RECORD).write_text((folder / RECORD).read_text()[:300])


@pytest.mark.parametrize(
  ("damage", "said"),
  [
    (_flip, r"parameters\.npz: not what was released \(by its SHA-256\); install it, or export"),
    (_change_spacing, r"config\.json: not what was released"),
    (lambda folder: (folder / "quality.json").unlink(), r"quality\.json: missing; install it"),
    (_cut, r"release\.json: not readable as JSON"),
    (lambda folder: (folder / RECORD).write_text("{}"), r"release\.json: not a release \(format\)"),
    (
      lambda folder: (folder / RECORD).write_text('{"format": 9}'),
      r"release\.json: not a release \(format 9 of another version\)",
    ),
  ],
)
def test_a_damaged_release_is_refused_in_one_line(shipped, damage, said):
  damage(shipped / "tiny")
  with pytest.raises(UserError, match=said) as refused:
    load_best(builtin.find_run("builtin:tiny"))
  assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
  ("change", "said"),
  [
    (lambda arrays: arrays.popitem(), r"parameters\.npz: not readable \(it (holds|lacks) "),
    (
      lambda arrays: arrays.update({next(iter(arrays)): np.zeros(3, np.float16)}),
      r"parameters\.npz: not readable \(.* is float16 \(3,\), and its config says \(",
    ),
    (
      lambda arrays: next(iter(arrays.values())).fill(np.nan),
      r"parameters\.npz: not readable \(.* has values that are NaN or infinite\)",
    ),
  ],
)
def test_parameters_of_another_network_are_refused_by_name(shipped, change, said):
  """Also where the digests are right, as of a release that somebody made by hand."""
  path = shipped / "tiny" / "parameters.npz"
  with np.load(path) as file:
    arrays = dict(file)
  change(arrays)
  save_arrays(path, **arrays)
  record = json.loads((shipped / "tiny" / RECORD).read_text())
  record["files"]["parameters.npz"] = hashlib.sha256(path.read_bytes()).hexdigest()
  (shipped / "tiny" / RECORD).write_text(json.dumps(record))
  with pytest.raises(UserError, match=said):
    load_best(builtin.find_run("builtin:tiny"))


def test_a_run_without_test_scores_is_not_released(run, tmp_path):
  workdir = tmp_path / "run"
  shutil.copytree(run, workdir)
  summary = workdir / "evaluation" / "summary.json"
  scored = json.loads(summary.read_text())
  for changed in ({**scored, "part": "validation"}, {**scored, "checkpoint_step": 3}):
    summary.write_text(json.dumps(changed))
    with pytest.raises(UserError, match="was not tested with its best checkpoint, of step 7"):
      release_run([workdir], tmp_path / "out", "CC0")
  for changed in ({**scored, "tta": "xy"}, {**scored, "postprocessing": None}):
    summary.write_text(json.dumps(changed))
    with pytest.raises(UserError, match=r"was tested with .*; evaluate again without --tta"):
      release_run([workdir], tmp_path / "out", "CC0")
  assert not (tmp_path / "out").exists()


def test_what_a_release_needs(run, shipped, tmp_path):
  with pytest.raises(UserError, match="name the licence of the network's values"):
    release_run([run], tmp_path / "out", "")
  with pytest.raises(UserError, match="a release, into which nothing is written; copy it"):
    release_run([shipped / "tiny"], tmp_path / "out", "CC0")
  (tmp_path / "out").mkdir()
  (tmp_path / "out" / "mine.txt").write_text("")
  with pytest.raises(UserError, match="holds something else than a release"):
    release_run([run], tmp_path / "out", "CC0")
  found = load_best(run)
  broken = dataclasses.replace(
    found, variables=jax.tree.map(lambda x: x * jnp.nan, found.variables)
  )
  with pytest.raises(UserError, match="NaN or infinite; such a network is not released"):
    workflow.save_variables(tmp_path / "a.npz", broken.variables)


def test_an_earlier_release_is_replaced(run, shipped):
  release_run([run], shipped / "tiny", "CC0")
  assert read_release(shipped / "tiny").licence == "CC0"
  load_best(shipped / "tiny")


def test_names_are_told(shipped, monkeypatch):
  assert builtin.list_builtin() == ["builtin:tiny"]
  assert builtin.find_run("runs/a") == Path("runs/a")
  assert builtin.name_run(Path("runs/a")) == "runs/a"
  with pytest.raises(UserError, match="no such network; there are builtin:tiny, and a folder"):
    builtin.find_run("builtin:../package/tiny")
  (shipped / "tiny" / RECORD).unlink()
  assert builtin.list_builtin() == []
  monkeypatch.setattr(builtin, "FOLDER", shipped / "nowhere")
  with pytest.raises(
    UserError, match="builtin:tiny: no such network; none comes with this version"
  ):
    find_runs("builtin:tiny")


def test_what_would_be_written_into_a_release_is_refused(shipped):
  for text in ("builtin:tiny", str(shipped / "tiny")):
    with pytest.raises(UserError, match=r"nothing is written.*; do that"):
      builtin.find_own_run(text, "do that")
    with pytest.raises(UserError, match="a release has no scores by case"):
      read_run(Path(text), dict)
  assert builtin.find_own_run("runs/a", "") == Path("runs/a")


@pytest.mark.parametrize("name", builtin.list_builtin())
def test_what_comes_with_the_program_is_whole_and_small(name):
  workdir = builtin.find_run(name)
  assert load_best(workdir).classes == read_release(workdir).classes
  # In another type OpenVINO would be left out, where it is installed.
  assert load_config(workdir / "config.json").model.dtype == "float32"
  assert sum(len(content) for content in _contents(workdir).values()) <= 8 * 2**20


def test_the_package_has_the_folder(tmp_path):
  """By setuptools' own reading of pyproject.toml, with a network in the place of those to come."""
  import tomllib

  patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())
  patterns = patterns["tool"]["setuptools"]["package-data"]["attn_unet_jax"]
  for name in (f"builtin/pancreas/{RECORD}", "builtin/pancreas/evaluation/summary.json"):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("")
    assert any(tmp_path / name in tmp_path.glob(pattern) for pattern in patterns), name
  assert not is_release(tmp_path)
