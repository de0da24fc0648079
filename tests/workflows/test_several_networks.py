"""Several runs of one recipe: scored as one, released as one, and opened as one."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax.cases.fold import open_fold
from attn_unet_jax.evaluation.choose_steps import ChosenSteps
from attn_unet_jax.evaluation.overlap import count_voxels, dice_score
from attn_unet_jax.inference.ensemble import EnsembleSystem
from attn_unet_jax.inference.postprocess import UNCHANGED, Postprocessing
from attn_unet_jax.inference.quality import QualityModel
from attn_unet_jax.inference.segment import segment_scan
from attn_unet_jax.inference.sliding import SlidingWindow
from attn_unet_jax.runs.release import RECORD, read_release
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.training.checkpoint import open_checkpoints
from attn_unet_jax.training.state import abstract_state
from attn_unet_jax.volumes.nifti import read_label, write_nifti
from attn_unet_jax.volumes.volume import Volume
from attn_unet_jax.weights.released import round_variables, save_variables
from attn_unet_jax.workflows import release_run as workflow
from attn_unet_jax.workflows.export_run import export_run
from attn_unet_jax.workflows.load_run import load_best, load_networks
from attn_unet_jax.workflows.network import build_run_network
from attn_unet_jax.workflows.open_ensemble import open_ensemble
from attn_unet_jax.workflows.options import ScoreOptions
from attn_unet_jax.workflows.other_dataset import list_seen_in_runs, open_other_for_runs
from attn_unet_jax.workflows.quality_record import write_quality
from attn_unet_jax.workflows.release_run import release_run
from attn_unet_jax.workflows.run_folder import open_run_folder
from attn_unet_jax.workflows.score_runs import score_mean, score_other_set
from attn_unet_jax.workflows.shared_fold import open_shared_fold
from attn_unet_jax.workflows.starting_run import open_starting_run
from attn_unet_jax.workflows.steps_record import write_record
from tests.configs import SMALLEST, small_config, with_keys
from tests.conftest import flip_a_bit
from tests.drawn_ct import drawn_ct

STEP = 7


def _make_run(workdir, config, seed):
  """Writes a run with drawn parameters, which has not been tested."""
  rng = np.random.default_rng(seed)
  state = jax.tree.map(
    lambda a: jnp.asarray(np.abs(rng.normal(size=a.shape)), a.dtype),
    abstract_state(config, build_run_network(config, 2)),
  ).replace(step=jnp.array(STEP, jnp.int32))
  open_run_folder(workdir, with_keys(config, {"seed": seed}))
  with open_checkpoints(workdir / "checkpoints", 1) as store:
    store.save(state, validation_dsc=0.5)
  fold = open_fold(config.data)
  (workdir / "folds.json").write_text(json.dumps(fold.listing))
  write_quality(workdir, {"pancreas": QualityModel(intercept=float(seed))}, STEP)
  return workdir


@pytest.fixture(scope="module")
def runs(phantoms, tmp_path_factory):
  """Three runs of the smallest network, of seeds 2, 3 and 4."""
  folder = tmp_path_factory.mktemp("runs")
  config = small_config(**SMALLEST, **{"data.dir": str(phantoms)})
  return [_make_run(folder / f"seed_{seed}", config, seed) for seed in (2, 3, 4)]


@pytest.fixture(scope="module")
def scores(runs, tmp_path_factory):
  """The folder of the scores of their mean."""
  folder = tmp_path_factory.mktemp("scores")
  score_mean(runs, "test", folder, ScoreOptions())
  return folder


@pytest.fixture(scope="module")
def released(runs, scores, tmp_path_factory):
  folder = tmp_path_factory.mktemp("released") / "three"
  release_run(runs, folder, "CC0", "phantoms", scores)
  return folder


@pytest.fixture
def copied(released, tmp_path):
  shutil.copytree(released, tmp_path / "three")
  return tmp_path / "three"


def test_the_mean_of_several_runs_is_scored_with_the_networks_that_it_is_of(runs, scores):
  summary = json.loads((scores / "evaluation" / "summary.json").read_text())
  assert summary["digest"] == open_ensemble(runs).digest != open_ensemble(runs[:2]).digest
  assert summary["part"] == "test"
  test = json.loads((runs[0] / "folds.json").read_text())["folds"][0]["test"]
  assert summary["cases"] == len(test)
  trained = open_ensemble(runs)
  fold = open_fold(trained.config.data)
  for case in test:
    mask = read_label(scores / "predictions" / f"{case}.nii.gz")
    image = fold.dataset.load(case).image
    expected, first = (
      segment_scan(image, one.system, one.config).mask.array
      for one in (trained, open_ensemble(runs[:1]))
    )
    np.testing.assert_array_equal(mask.array, expected)
    assert (first != expected).any()


@pytest.fixture(scope="module")
def answers(runs):
  """What each network says of a scan with its parameters as they are after they were stored."""
  found = [load_best(run) for run in runs]
  return [
    SlidingWindow(one.config, one.module).use(round_variables(one.variables)).predict(drawn_ct())
    for one in found
  ]


def test_another_data_set_is_scored_by_the_mean_of_runs_and_releases(runs, released, tmp_path):
  """One that both have learnt from, in part: which cases, is said of all of them together."""
  data = tmp_path / "DATA"
  seen = json.loads((runs[0] / "folds.json").read_text())["folds"][0]["training"][0]
  for name in (seen, "new"):
    write_nifti(data / "imagesTr" / f"{name}.nii.gz", drawn_ct())
    label = Volume((drawn_ct().array > 0).astype(np.uint8), drawn_ct().affine)
    write_nifti(data / "labelsTr" / f"{name}.nii.gz", label)
  changes = {"folder": str(data), "labels": "pancreas=1"}
  for count, workdirs in enumerate(([released], [released, runs[0]])):
    folder = tmp_path / str(count)
    score_other_set(workdirs, changes, None, folder, ScoreOptions())
    summary = json.loads((folder / "evaluation" / "DATA" / "summary.json").read_text())
    assert summary["cases"] == 2
    assert summary["seen_in_training"] == [seen]
    assert summary["digest"] == open_ensemble(workdirs).digest


def test_a_release_of_several_answers_with_their_mean(answers, released):
  trained = open_ensemble([released])
  assert isinstance(trained.system, EnsembleSystem)
  assert len(trained.networks) == len(trained.members) == 3
  mean = np.mean(answers, axis=0)
  np.testing.assert_allclose(trained.system.predict(drawn_ct()), mean, atol=1e-6)
  assert all(np.abs(one - mean).max() > 0.1 for one in answers)
  likeliest = mean.argmax(-1) == 1
  agreed = [dice_score(count_voxels(one.argmax(-1) == 1, likeliest)) for one in answers]
  assert trained.agreement.measure() == pytest.approx([np.mean(agreed)])


def test_a_release_of_several_says_so(runs, scores, released):
  said = read_release(released)
  assert said.networks == 3
  assert said.parameter_files == ("parameters.npz", "parameters_2.npz", "parameters_3.npz")
  assert "segments pancreas by the mean of 3 networks; trained on phantoms;" in said.describe()
  card = (released / "MODEL_CARD.md").read_text()
  assert "| networks | 3, of the seeds 2, 3, 4; their probabilities are averaged." in card
  assert "test cases, by the mean of the networks, on the scans' own grids." in card
  assert "parameters_3.npz are licensed under CC0" in (released / "LICENCE.txt").read_text()
  quality = json.loads((released / "quality.json").read_text())
  assert quality["classes"]["pancreas"]["intercept"] == 3.0
  summary = json.loads((scores / "evaluation" / "summary.json").read_text())
  assert said.test_dsc["pancreas"] == summary["classes"]["pancreas"]["dsc"]["mean"]
  assert said.rounding["voxels"] == 3 * 4 * 16**3


def test_its_networks_are_those_of_the_runs_in_their_order(runs, released):
  for run, found in zip(runs, load_networks(released), strict=True):
    own = load_best(run)
    for ours, theirs in zip(
      jax.tree.leaves(own.variables), jax.tree.leaves(found.variables), strict=True
    ):
      np.testing.assert_allclose(theirs, ours, rtol=2**-10, atol=1e-7)
  first = load_best(released)
  assert jax.tree.all(
    jax.tree.map(np.array_equal, first.variables, load_networks(released)[0].variables)
  )


def test_beside_another_run_each_of_its_networks_counts_once(answers, released, tmp_path):
  shutil.copytree(released, tmp_path / "copy")
  mean = open_ensemble([released, _keep_first(tmp_path / "copy")])
  expected = np.mean([*answers, answers[0]], axis=0)
  np.testing.assert_allclose(mean.system.predict(drawn_ct()), expected, atol=1e-6)
  assert len(mean.members) == len(mean.networks) == 4


def _keep_first(folder):
  """Makes a release of one network of the first of several."""
  record = json.loads((folder / RECORD).read_text()) | {"format": 1, "networks": 1}
  (folder / RECORD).write_text(json.dumps(record))
  return folder


def test_a_run_starts_from_the_first_of_them(runs, released, capsys):
  config = with_keys(load_best(runs[0]).config, {"init.workdir": str(released)})
  origin = open_starting_run(config, build_run_network(config, 2))
  assert f"from the first of the 3 networks of {released}" in capsys.readouterr().out
  first = load_networks(released)[0].variables
  assert jax.tree.all(jax.tree.map(np.array_equal, origin.others[0].variables, first))


def test_all_of_them_are_exported(released, tmp_path):
  export_run([released], tmp_path / "exported")
  (run,) = json.loads((tmp_path / "exported" / "network.json").read_text())["runs"]
  assert run["networks"] == 3
  assert run["digest"] == open_ensemble([released]).digest
  assert run["test_scores"]["cases"] == 2
  card = (tmp_path / "exported" / "MODEL_CARD.md").read_text()
  assert card.count("# Model card: three") == 1


def test_the_card_and_the_files_say_the_steps_that_all_chose(runs, tmp_path):
  """Of the first alone they would be others than the mean takes."""
  copies = [tmp_path / run.name for run in runs]
  for run, copy in zip(runs, copies, strict=True):
    shutil.copytree(run, copy)
    write_record(copy, ChosenSteps(Postprocessing(largest=True), 0.5, 0.6, 9), STEP)
  score_mean(copies, "test", tmp_path / "scores", ScoreOptions())
  release_run(copies, tmp_path / "out", "CC0", scores=tmp_path / "scores")
  record = json.loads((tmp_path / "out" / "postprocess.json").read_text())
  assert record["steps"]["largest"]
  assert "validation" not in record
  assert open_ensemble([tmp_path / "out"]).postprocessing == Postprocessing(largest=True)
  assert "| steps after the network | largest" in (tmp_path / "out" / "MODEL_CARD.md").read_text()
  write_record(copies[2], ChosenSteps(Postprocessing(fill_holes=True), 0.5, 0.6, 9), STEP)
  score_mean(copies, "test", tmp_path / "scores", ScoreOptions())
  release_run(copies, tmp_path / "out", "CC0", scores=tmp_path / "scores")
  assert open_ensemble([tmp_path / "out"]).postprocessing == UNCHANGED
  assert "| steps after the network | none |" in (tmp_path / "out" / "MODEL_CARD.md").read_text()


def test_a_release_that_cannot_be_written_leaves_the_earlier_one(runs, scores, copied, monkeypatch):
  before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
  (copied / "notes.txt").write_text("mine")

  def fail(path, variables):
    if path.name == "parameters_2.npz":
      raise OSError(28, "No space left on device", str(path))
    save_variables(path, variables)

  monkeypatch.setattr(workflow, "save_variables", fail)
  with pytest.raises(UserError, match=r"parameters_2\.npz: cannot be written \(No space left"):
    release_run(runs, copied, "CC0", "others", scores)
  assert {path: path.read_bytes() for path in before} == before
  assert sorted(path.name for path in copied.parent.iterdir()) == ["three"]
  monkeypatch.undo()
  release_run(runs, copied, "CC0", "others", scores)
  assert read_release(copied).trained_on == "others"
  assert (copied / "notes.txt").read_text() == "mine"


def test_fewer_networks_leave_no_file_of_the_third(runs, copied, tmp_path):
  score_mean(runs[:2], "test", tmp_path / "two", ScoreOptions())
  release_run(runs[:2], copied, "CC0", scores=tmp_path / "two")
  assert not (copied / "parameters_3.npz").exists()
  assert len(load_networks(copied)) == 2


def _lose_a_digest(record):
  del record["files"]["parameters_2.npz"]


@pytest.mark.parametrize(
  ("change", "said"),
  [
    (_lose_a_digest, r"not a release \(no digest of parameters_2\.npz\)"),
    (lambda record: record.update(networks=4), r"no digest of parameters_4\.npz"),
    (lambda record: record.update(networks=10**9), r"1000000000 networks in format 2"),
    (lambda record: record.update(networks=1), r"1 networks in format 2"),
    (lambda record: record.update(networks=0), r"0 networks in format 2"),
    (lambda record: record.update(format=1), r"3 networks in format 1"),
  ],
)
def test_a_record_that_does_not_fit_is_refused(copied, change, said):
  record = json.loads((copied / RECORD).read_text())
  change(record)
  (copied / RECORD).write_text(json.dumps(record))
  with pytest.raises(UserError, match=said):
    open_ensemble([copied])


def test_a_damaged_network_is_refused_even_where_the_first_alone_is_read(copied):
  flip_a_bit(copied / "parameters_3.npz")
  for load in (load_best, load_networks):
    with pytest.raises(UserError, match=r"parameters_3\.npz: not what was released"):
      load(copied)


def test_what_a_release_of_several_needs(runs, scores, tmp_path):
  with pytest.raises(UserError, match=r"^--scores: of several runs, the folder where their mean"):
    release_run(runs, tmp_path / "out", "CC0")
  with pytest.raises(UserError, match=r"^--scores=.*: is for several runs"):
    release_run(runs[:1], tmp_path / "out", "CC0", scores=scores)
  with pytest.raises(
    UserError, match=r"has the scores of other networks, or .*evaluate --workdir="
  ):
    release_run(runs[:2], tmp_path / "out", "CC0", scores=scores)
  with pytest.raises(UserError, match=r"other networks, or of these in another order, .*evaluate"):
    release_run(runs[::-1], tmp_path / "out", "CC0", scores=scores)
  with pytest.raises(UserError, match=r"^--scores=.*nowhere: has no evaluation/summary\.json"):
    release_run(runs, tmp_path / "out", "CC0", scores=tmp_path / "nowhere")
  other = _make_run(tmp_path / "wide", with_keys(load_best(runs[0]).config, {
    "optimizer.learning_rate": 0.5}), 5)  # fmt: skip
  with pytest.raises(UserError, match=r"wide: has optimizer.learning_rate=0.5, and .*one recipe"):
    release_run([runs[0], other], tmp_path / "out", "CC0", scores=scores)
  assert not (tmp_path / "out").exists()


def test_scores_of_a_mean_are_not_those_of_one_run(runs, scores, tmp_path):
  shutil.copytree(runs[0], tmp_path / "run")
  shutil.copytree(scores / "evaluation", tmp_path / "run" / "evaluation")
  with pytest.raises(UserError, match="run: has the scores of other networks"):
    release_run([tmp_path / "run"], tmp_path / "out", "CC0")


@pytest.mark.parametrize(
  ("changes", "fits"),
  [
    ({"data.also": "painted_ct/maps"}, False),
    ({"data.labels": "pancreas=pancreas"}, False),
    ({"data.accept": "pose", "data.dir": "elsewhere", "data.fold": 1}, True),
  ],
)
def test_what_runs_of_one_recipe_may_differ_in(runs, changes, fits):
  first = load_best(runs[0])
  other = dataclasses.replace(first, config=with_keys(first.config, changes))
  if fits:
    workflow._check_recipe(runs[:2], [first, other])
  else:
    with pytest.raises(UserError, match=f"seed_3: has {next(iter(changes))}="):
      workflow._check_recipe(runs[:2], [first, other])


def test_runs_whose_test_cases_differ_are_not_scored_together(runs, tmp_path):
  config = load_best(runs[0]).config
  moved = tmp_path / "moved"
  shutil.copytree(runs[1], moved)
  listing = json.loads((moved / "folds.json").read_text())
  fold = listing["folds"][0]
  fold["test"], fold["training"] = fold["training"], fold["test"]
  (moved / "folds.json").write_text(json.dumps(listing))
  with pytest.raises(UserError, match=r"moved: has other test cases than .*seed_2, which one of"):
    open_shared_fold([runs[0], moved], config, "test")
  assert set(list_seen_in_runs([runs[0], moved])) >= {*fold["test"], *fold["training"]}
  elsewhere = tmp_path / "elsewhere"
  shutil.copytree(runs[1], elsewhere)
  path = elsewhere / "config.json"
  path.write_text(path.read_text().replace('"phantom_ct/tiny"', '"phantom_ct/demo"'))
  with pytest.raises(UserError, match=r"elsewhere: its data is phantom_ct/demo in .*; name the"):
    open_shared_fold([runs[0], elsewhere], config, "test")
  text = (runs[1] / "config.json").read_text()
  path.write_text(text.replace('"labels": "pancreas', '"labels": "pancreas=pancreas'))
  with pytest.raises(UserError, match=r"elsewhere: has config\.data\.labels="):
    open_shared_fold([runs[0], elsewhere], config, "test")
  path.write_text(text.replace('"fold": 0', '"fold": "all"'))
  for workdirs in ([runs[0], elsewhere], [elsewhere, runs[0]]):
    # The config that is given is that of one network: of fold 0 of the run of all folds.
    with pytest.raises(UserError, match="elsewhere: a run of all folds, each of which has its own"):
      open_shared_fold(workdirs, config, "test")


def test_a_data_set_is_another_one_where_it_is_not_that_of_all(runs, released, phantoms, tmp_path):
  config = load_best(runs[0]).config
  changes = {"dataset": config.data.dataset, "dir": str(phantoms)}
  with pytest.raises(UserError, match="this is the run's own data set"):
    open_other_for_runs(runs, config, changes, None)
  shutil.copytree(runs[1], tmp_path / "b")
  path = tmp_path / "b" / "config.json"
  path.write_text(path.read_text().replace('"phantom_ct/tiny"', '"phantom_ct/demo"'))
  for workdirs in ([runs[0], tmp_path / "b"], [tmp_path / "b", runs[0]], [released, runs[0]]):
    found = open_other_for_runs(workdirs, config, changes, None)
    assert len(found.about["seen_in_training"]) < len(found.fold.split.test)
