"""What a user gets wrong in a command line ends with one line and status 2; nothing is written."""

import json

import pytest

from attn_unet_jax.cases.folds import by_hash
from attn_unet_jax.config.stored import to_json
from tests.configs import with_keys
from tests.conftest import run_command, run_flags

MAIN = "attn_unet_jax.main"
SLOW = pytest.mark.slow


def test_evaluate_changes_no_key_but_those_of_another_set(tmp_path):
  flags = (f"--workdir={tmp_path}", "--config.data.spacing_mm=3")
  done = run_command("attn_unet_jax.evaluate", *flags)
  assert done.returncode == 2
  assert done.stderr.startswith("error: Unknown command line flag 'config.data.spacing_mm'")
  assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
  ("flags", "complaint"),
  [
    (["--workdir=nowhere", "--labels=foo=9"], "--labels=foo=9: is for --prediction"),
    (["--workdir=a,b"], "--output is missing: of several runs, the folder for the scores of their"),
    (
      ["--workdir=a,b", "--output=attn_unet_jax/builtin/pancreas"],
      "--output=attn_unet_jax/builtin/pancreas: a run or a release, whose own scores lie there",
    ),
    (["--workdir=a,a", "--output=nowhere"], "--workdir=a,a: a run is there twice"),
    (["--workdir=a,b", "--output=nowhere", "--attention"], "--attention: is for one run"),
    (["--workdir=a", "--output=nowhere"], "--output=nowhere: is for several runs or another data"),
    (
      ["--prediction=nowhere", "--reference=nowhere", "--output=LICENSE/scores"],
      "LICENSE/scores: cannot be written (Not a directory)",
    ),
    (
      ["--prediction=nowhere", "--reference=nowhere", "--output=nowhere", "--nsd_mm=2,nan"],
      "--nsd_mm=nan: must be distances in mm",
    ),
  ],
)
def test_evaluate_refuses_flags_before_any_work(flags, complaint):
  done = run_command("attn_unet_jax.evaluate", *flags)
  assert done.returncode == 2
  assert done.stderr.startswith(f"error: {complaint}")
  assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_evaluate_refuses_a_part_that_cannot_be_pooled_before_any_fold_is_opened(config, tmp_path):
  (tmp_path / "config.json").write_text(to_json(with_keys(config, {"data.fold": "all"})))
  (tmp_path / "folds.json").write_text(json.dumps({"folds": by_hash("abcdefghij")}))
  done = run_command("attn_unet_jax.evaluate", f"--workdir={tmp_path}", "--part=training")
  assert done.returncode == 2
  assert " is a training case of folds 0 and 1, and pooled scores" in done.stderr
  assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_convert_tries_the_folder_before_it_reads_the_weights(tmp_path):
  flags = ("--config=tests/small.py", f"--input={tmp_path}/none.pth", "--workdir=LICENSE/run")
  done = run_command("attn_unet_jax.convert", *flags)
  assert done.returncode == 2
  assert done.stderr.startswith("error: LICENSE/run: cannot be written (Not a directory)")
  assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
  ("flags", "complaint"),
  [
    (["--config.train.epoch=3"], "key config.train.epoch; did you mean config.train.epochs?"),
    pytest.param(
      ["--config.nothing=3"], "docs/reference/config.md and --help list the keys", marks=SLOW
    ),
    pytest.param(["--config.data.fold=one"], "config.data.fold", marks=SLOW),
    pytest.param(["--parallel_folds"], "add --config.data.fold=all", marks=SLOW),
    pytest.param(["--nonsense=1"], "nonsense", marks=SLOW),
    pytest.param(["stray"], "'stray' is not a flag", marks=SLOW),
    (["--config.train.epochs=0"], "config.train.epochs=0: must be above 0"),
    pytest.param(
      ["--config.inference.patch=(20,32,40)"],
      "nearest patch that it can take is (16, 32, 32)",
      marks=SLOW,
    ),
    pytest.param(["--config.data.labels=pancreas=9+x"], "'x' must be one of", marks=SLOW),
    (["--config.data.labels=spleeen"], "'spleeen' must be one of"),
    pytest.param(["--config.data.fold=3"], "config.data.fold=3", marks=SLOW),
    pytest.param(["--config.data.dir=nowhere"], "tfds_pancreas.build", marks=SLOW),
    pytest.param(
      ["--config.data.spacing_mm=0.001"], ": voxels of 0.001 mm in its field of", marks=SLOW
    ),
    pytest.param(
      ["--config.data.dataset=", "--config.data.folder=nowhere"], "imagesTr/NAME.nii.gz", marks=SLOW
    ),
    pytest.param(["--workdir=LICENSE/run"], "cannot be written", marks=SLOW),
    pytest.param(["--config=none.py"], "none.py", marks=SLOW),
    pytest.param(["--config.data.boxes=nowhere.json"], "nowhere.json: No such file", marks=SLOW),
    pytest.param(["--config.init.workdir=nowhere"], "nowhere/config.json: not found", marks=SLOW),
  ],
)
def test_a_wrong_run_ends_with_one_line_and_status_2(phantoms, tmp_path, flags, complaint):
  workdir = tmp_path / "run"
  done = run_command(MAIN, *run_flags(phantoms, workdir), *flags)
  assert done.returncode == 2, done.stderr
  assert done.stderr.startswith("error: ")
  assert done.stderr.count("\n") == 1
  assert complaint in done.stderr
  assert not workdir.exists()


@pytest.mark.parametrize(
  ("content", "complaint"),
  [
    ("def get_config(:", "SyntaxError"),
    pytest.param("import nowhere", "nowhere", marks=SLOW),
    ("def get_config():\n  raise RuntimeError('oops')", "oops"),
    pytest.param("x = 1", "get_config", marks=SLOW),
    pytest.param(
      "from tests.small import get_config as it\ndef get_config():\n  it().train.epoch = 3",
      ' Did you mean "epochs" instead of "epoch"?',
      marks=SLOW,
    ),
    pytest.param(
      "import ml_collections\nget_config = ml_collections.ConfigDict",
      "start from default",
      marks=SLOW,
    ),
  ],
)
def test_a_broken_experiment_file_is_one_line(tmp_path, content, complaint):
  path = tmp_path / "experiment.py"
  path.write_text(content)
  done = run_command("attn_unet_jax.info", f"--config={path}")
  assert done.returncode == 2, done.stderr
  assert done.stderr.startswith("error: ")
  assert done.stderr.count("\n") == 1
  assert complaint in done.stderr


def test_scores_of_a_mean_do_not_replace_those_of_a_run(tmp_path):
  """Those of another data set lie beside them, in a folder of their own."""
  (tmp_path / "config.json").write_text("{}")
  flags = ("--workdir=a,b", f"--output={tmp_path}")
  done = run_command("attn_unet_jax.evaluate", *flags)
  assert done.returncode == 2
  assert done.stderr.startswith(f"error: --output={tmp_path}: a run or a release, whose own scores")
  done = run_command("attn_unet_jax.evaluate", *flags, "--config.data.folder=nowhere")
  assert done.returncode == 2
  assert done.stderr.startswith("error: a/config.json: not found")
