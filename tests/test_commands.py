"""The commands as a user runs them, on the tiny phantoms, with a TensorFlow that must not load.

With the smallest network, as there are dozens of processes. Attention U-Net goes through the same
commands in the tests of an earlier run, and in `make demo`.
"""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import nibabel as nib
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from attn_unet_jax.cases.dataset import RecordDataset
from attn_unet_jax.runs.metrics_csv import COLUMNS, read_metrics
from attn_unet_jax.training.checkpoint import list_saved_steps
from attn_unet_jax.volumes.nifti import read_label, read_nifti, write_nifti
from attn_unet_jax.volumes.orientation import to_canonical
from attn_unet_jax.volumes.volume import Volume
from attn_unet_jax.workflows.load_run import load_best
from benchmarks.orientations import on_axes, turn_axes
from tests import conftest
from tests.configs import SMALLEST
from tests.conftest import ROOT, SHARED, run_command, stop_when
from tests.written_dicom import assert_anonymous, write_volume
from tfds_pancreas.records import open_records

MAIN = "attn_unet_jax.main"
SLOW = pytest.mark.slow
SMALL = {key.replace(".", "__"): value for key, value in SMALLEST.items()}
TRAINED = {"train__steps_per_epoch": 40, "data__labels": "liver"}  # large enough to be found


def run_flags(data_dir, workdir, **changes):
  return conftest.run_flags(data_dir, workdir, **{**SMALL, **changes})


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp("data")
  flags = ("--dataset=phantom_ct/tiny", f"--data_dir={folder}")
  done = run_command("tfds_pancreas.build", *flags)
  assert done.returncode == 0, done.stderr
  return folder


@pytest.fixture(scope="module")
def trained(data_dir, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("runs") / "a"
  done = run_command(MAIN, *run_flags(data_dir, workdir, **TRAINED))
  assert done.returncode == 0, done.stderr
  return workdir, done


@pytest.fixture(scope="module")
def scan(data_dir, tmp_path_factory):
  case = RecordDataset(open_records("phantom_ct/tiny", data_dir))
  path = tmp_path_factory.mktemp("scans") / "scan.nii.gz"
  write_nifti(path, case.load(case.ids[0]).image)
  return path


@pytest.mark.parametrize("env", [{}, {"JAX_TRACEBACK_FILTERING": "off"}], ids=["forked", "alone"])
def test_a_command_that_imports_tensorflow_ends(env, tmp_path):
  """Here by its config file; else nothing would be shown by the commands of these tests."""
  config = tmp_path / "config.py"
  config.write_text("import tensorflow\nfrom tests.small import get_config\n")
  done = run_command(MAIN, f"--config={config}", f"--workdir={tmp_path}/run", env=env)
  assert done.returncode == 1
  assert "tensorflow was imported" in done.stderr


def test_a_run_writes_everything_it_promises(trained):
  workdir, done = trained
  rows = read_metrics(workdir / "metrics.csv")
  assert [row["epoch"] for row in rows] == ["1", "2"]
  assert list(rows[0]) == list(COLUMNS)
  assert not (workdir / "attention.csv").exists()  # this network has no gates
  config = json.loads((workdir / "config.json").read_text())
  assert config["model"]["feature_scale"] == 2.0
  record = json.loads((workdir / "run.json").read_text())
  assert record["exit"] == "done"
  summary = json.loads((workdir / "evaluation" / "summary.json").read_text())
  test_ids = json.loads((workdir / "folds.json").read_text())["folds"][0]["test"]
  assert summary["cases"] == len(test_ids)
  masks = {path.name for path in (workdir / "predictions").glob("*.nii.gz")}
  assert masks == {f"{case}.nii.gz" for case in test_ids}
  assert list(workdir.glob("events.*"))
  assert (workdir / "curves.png").read_bytes().startswith(b"\x89PNG")
  page = (workdir / "report.html").read_text()
  assert all(case in page for case in test_ids)
  for name in ("metrics.csv", "cases.csv", "summary.json", "predictions", "report.html"):
    assert name in done.stdout
  assert done.stderr == ""


@pytest.mark.slow
def test_a_finished_run_is_evaluated_again_and_changes_nothing(trained, data_dir):
  workdir, _ = trained
  before = (workdir / "metrics.csv").read_text()
  cases = (workdir / "evaluation" / "cases.csv").read_text()
  done = run_command(MAIN, *run_flags(data_dir, workdir, **TRAINED))
  assert done.returncode == 0, done.stderr
  assert "resuming" in done.stdout
  assert (workdir / "metrics.csv").read_text() == before
  assert (workdir / "evaluation" / "cases.csv").read_text() == cases


@pytest.mark.slow
def test_a_run_starts_from_another_and_goes_on_without_it(trained, data_dir, tmp_path):
  """All but the last layers are frozen, bit for bit; the other run may then be gone."""
  source, workdir = tmp_path / "source", tmp_path / "a"
  shutil.copytree(trained[0], source)
  changes = {"init__workdir": str(source), "init__freeze": "small|strided|stack"}
  flags = run_flags(data_dir, workdir, data__labels="liver", train__epochs=1, **changes)
  done = run_command(MAIN, *flags)
  assert done.returncode == 0, done.stderr
  assert "background, liver" in done.stdout
  before, after = (
    flatten_dict(load_best(folder).variables["params"]) for folder in (source, workdir)
  )
  moved = {path[0] for path in after if not np.array_equal(after[path], before[path])}
  assert moved == {"skip1", "head"}
  record = json.loads((workdir / "run.json").read_text())["init"]
  assert record["workdir"] == str(source)
  assert record["checkpoint_step"] == load_best(source).step
  shutil.rmtree(source)
  done = run_command(MAIN, *flags)
  assert done.returncode == 0, done.stderr
  assert "resuming" in done.stdout
  assert json.loads((workdir / "run.json").read_text())["init"] == record


@pytest.mark.slow
def test_evaluate_scores_another_part(trained):
  workdir, _ = trained
  done = run_command("attn_unet_jax.evaluate", f"--workdir={workdir}", "--part=validation")
  assert done.returncode == 0, done.stderr
  summary = json.loads((workdir / "evaluation" / "validation" / "summary.json").read_text())
  assert summary["part"] == "validation"


@pytest.mark.slow
def test_a_fold_that_fails_leaves_no_pooled_scores_of_before(trained, tmp_path):
  """Scores of all folds that lie beside a newer one of a fold would be of no run."""
  pooled = tmp_path / "folds"
  for fold in ("fold_0", "fold_1"):
    shutil.copytree(trained[0], pooled / fold)
  config = json.loads((trained[0] / "config.json").read_text())
  config["data"]["fold"] = "all"
  (pooled / "config.json").write_text(json.dumps(config))
  (own,) = json.loads((trained[0] / "folds.json").read_text())["folds"]
  other = {"training": own["test"], "validation": own["validation"], "test": own["training"][:1]}
  (pooled / "folds.json").write_text(json.dumps({"folds": [own, other]}))
  (pooled / "fold_1" / "folds.json").write_text(json.dumps({"folds": [other]}))
  command = ("attn_unet_jax.evaluate", f"--workdir={pooled}")
  done = run_command(*command)
  assert done.returncode == 0, done.stderr
  table = pooled / "evaluation" / "cases.csv"
  assert all(case in table.read_text() for case in [*own["test"], *other["test"]])
  shutil.rmtree(pooled / "fold_1" / "checkpoints")
  (pooled / "fold_1" / "checkpoints" / "1").mkdir(parents=True)
  done = run_command(*command)
  assert done.returncode == 2
  assert not table.exists()
  assert (pooled / "fold_0" / "evaluation" / "cases.csv").exists()


@pytest.fixture(scope="module")
def other_set(data_dir, tmp_path_factory):
  """Two test cases of the run as a plain folder, their labels renumbered and named."""
  folder = tmp_path_factory.mktemp("sets") / "other"
  records = RecordDataset(open_records("phantom_ct/tiny", data_dir))
  for case_id in records.parts["test"]:
    case = records.load(case_id)
    liver = case.label.array == records.label_names["liver"]
    label = Volume(np.where(liver, 7, case.label.array != 0).astype(np.uint8), case.image.affine)
    write_nifti(folder / "imagesTr" / f"x_{case_id}.nii", case.image)
    write_nifti(folder / "labelsTr" / f"x_{case_id}.nii", label)
  names = {"background": 0, "rest": 1, "liver": 7}
  (folder / "dataset.json").write_text(json.dumps({"labels": names}))
  return folder


def _scores(workdir):
  rows = csv.DictReader((workdir / "cases.csv").read_text().splitlines())
  return {row["case"].removeprefix("x_"): float(row["dsc"]) for row in rows}


@pytest.mark.slow
def test_evaluate_scores_another_set_by_the_names_of_its_classes(trained, other_set):
  workdir, _ = trained
  evaluation = workdir / "evaluation"
  own = {p: p.read_bytes() for p in evaluation.iterdir() if p.is_file()}
  flags = (f"--workdir={workdir}", f"--config.data.folder={other_set}")
  done = run_command("attn_unet_jax.evaluate", *flags)
  assert done.returncode == 0, done.stderr
  assert "other: 2 cases, classes liver=7 (background: rest)" in done.stdout
  assert _scores(evaluation / "other") == pytest.approx(_scores(evaluation), abs=1e-3)
  assert min(_scores(evaluation).values()) > 0
  summary = json.loads((evaluation / "other" / "summary.json").read_text())
  assert summary["data"] == {"folder": str(other_set.resolve())}
  assert summary["part"] == "all"
  assert summary["seen_in_training"] == []
  masks = sorted(path.name for path in (workdir / "predictions" / "other").iterdir())
  assert masks == sorted(path.name + ".gz" for path in (other_set / "imagesTr").iterdir())
  assert {p: p.read_bytes() for p in own} == own


@pytest.mark.slow
def test_a_run_inside_boxes(data_dir, scan, tmp_path):
  """Trained and scored inside them, resumed with the same ones only, predicting with others."""
  case_ids = RecordDataset(open_records("phantom_ct/tiny", data_dir)).ids
  boxes, workdir = tmp_path / "in.json", tmp_path / "run"
  box = [[-150, -150, -80], [20, 150, 80]]
  boxes.write_text(json.dumps(dict.fromkeys(case_ids, box)))
  flags = run_flags(data_dir, workdir, data__labels="liver", data__boxes=str(boxes))
  done = run_command(MAIN, *flags)
  assert done.returncode == 0, done.stderr
  rows = list(csv.DictReader((workdir / "evaluation" / "cases.csv").read_text().splitlines()))
  assert all(0 < float(row["box_recall"]) < 1 for row in rows)
  assert all(0 < float(row["box_volume_reduction"]) < 1 for row in rows)
  (mask,) = list((workdir / "predictions").iterdir())[:1]
  array = to_canonical(read_label(mask)).array
  assert not array[int(0.8 * len(array)) :].any()  # beyond 20 mm to the right of the middle
  command = ("attn_unet_jax.predict", f"--workdir={workdir}", f"--input={scan}")
  done = run_command(*command, f"--output={tmp_path}/mask.nii.gz")
  assert (done.returncode, "--boxes=FILE" in done.stderr) == (2, True)
  boxes.write_text(json.dumps({**dict.fromkeys(case_ids, box), "mask": box}))
  done = run_command(*command, f"--output={tmp_path}/mask.nii.gz", f"--boxes={boxes}")
  assert done.returncode == 0, done.stderr
  assert run_command(MAIN, *flags).returncode == 0
  other = [[-150, -150, -80], [30, 150, 80]]
  boxes.write_text(json.dumps(dict.fromkeys(case_ids, other)))
  done = run_command(MAIN, *flags)
  assert done.returncode == 2
  assert "differs from the one that the run began with" in done.stderr


def test_predict_writes_on_the_files_own_grid(trained, scan, tmp_path):
  output = tmp_path / "new" / "mask.nii.gz"
  flags = (f"--workdir={trained[0]}", f"--input={scan}", f"--output={output}")
  done = run_command("attn_unet_jax.predict", *flags)
  assert done.returncode == 0, done.stderr
  mask, image = nib.load(output), nib.load(scan)
  assert mask.shape == image.shape
  assert mask.get_data_dtype() == np.uint8
  np.testing.assert_array_equal(mask.affine, image.affine)
  assert "1 liver" in done.stdout


@pytest.mark.slow
def test_an_ensemble_of_equal_runs_gives_the_mask_of_one(trained, scan, tmp_path):
  shutil.copytree(trained[0], tmp_path / "b")
  masks = []
  for workdir in (trained[0], f"{trained[0]},{tmp_path}/b"):
    output = tmp_path / f"mask{len(masks)}.nii.gz"
    flags = (f"--workdir={workdir}", f"--input={scan}", f"--output={output}")
    done = run_command("attn_unet_jax.predict", *flags)
    assert done.returncode == 0, done.stderr
    masks.append(read_label(output).array)
  assert "an ensemble of 2 runs" in done.stdout
  np.testing.assert_array_equal(*masks)


@pytest.mark.slow
def test_a_service_gives_the_mask_of_predict_and_ends_by_a_signal(trained, scan, tmp_path):
  httpx2 = pytest.importorskip("httpx2")
  flags = (f"--workdir={trained[0]}", f"--input={scan}", f"--output={tmp_path}/mask.nii.gz")
  done = run_command("attn_unet_jax.predict", *flags)
  assert done.returncode == 0, done.stderr
  (tmp_path / "temporary").mkdir()
  with subprocess.Popen(
    [sys.executable, "-m", "attn_unet_jax.serve", f"--workdir={trained[0]}", "--port=0"],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env={**os.environ, "JAX_PLATFORMS": "cpu", "TMPDIR": str(tmp_path / "temporary")},
  ) as process:
    try:
      said = next(line for line in process.stdout if line.startswith("listens at "))
      url = said.split()[2].rstrip(",")
      assert httpx2.get(f"{url}/info/").json()["labels"] == ["liver"]
      answer = httpx2.post(
        f"{url}/infer/a?output=image", files={"file": ("ct.nii.gz", scan.read_bytes())}, timeout=300
      )
    finally:
      process.send_signal(signal.SIGTERM)
      errors = process.communicate(timeout=300)[1]
  assert (answer.status_code, process.returncode, errors) == (200, 143, "")
  (tmp_path / "served.nii.gz").write_bytes(answer.content)
  served, mask = read_label(tmp_path / "served.nii.gz"), read_label(tmp_path / "mask.nii.gz")
  np.testing.assert_array_equal(served.array, mask.array)
  np.testing.assert_array_equal(served.affine, mask.affine)
  assert not any((tmp_path / "temporary").iterdir())


@pytest.mark.slow
def test_dicom_gives_the_mask_of_the_same_scan_as_nifti(trained, scan, tmp_path):
  scans, masks, image = tmp_path / "scans", tmp_path / "masks", on_axes(read_nifti(scan), "LPS")
  files = write_volume(scans / "folder" / "nested", image)
  (scans / "nifti.nii.gz").write_bytes(scan.read_bytes())
  with zipfile.ZipFile(scans / "zip.zip", "w") as archive:
    for file in files:
      archive.write(file, file.stem)
  flags = (f"--workdir={trained[0]}", f"--input={scans}", f"--output={masks}")
  done = run_command("attn_unet_jax.predict", *flags)
  assert done.returncode == 0, done.stderr
  found = {p.name: to_canonical(read_label(p)) for p in masks.glob("*.nii.gz")}
  assert sorted(found) == ["folder.nii.gz", "nifti.nii.gz", "zip.nii.gz"]
  expected = found["nifti.nii.gz"]
  assert 0 < expected.array.mean() < 1
  for mask in found.values():
    np.testing.assert_array_equal(mask.array, expected.array)
    np.testing.assert_allclose(mask.affine, expected.affine, atol=1e-3)
  assert read_label(masks / "folder.nii.gz").orientation == "LPS"  # the series' own grid
  assert_anonymous(done.stdout + done.stderr + str(nib.load(masks / "folder.nii.gz").header))


@pytest.mark.slow
def test_predict_takes_the_chosen_series(trained, scan, tmp_path):
  image, output = read_nifti(scan), tmp_path / "mask.nii.gz"
  write_volume(tmp_path / "dicom" / "a", image)
  write_volume(tmp_path / "dicom" / "b", Volume(image.array[:, :, :9], image.affine), uid="1.2.4")
  flags = (f"--workdir={trained[0]}", f"--input={tmp_path}/dicom", f"--output={output}")
  done = run_command("attn_unet_jax.predict", *flags, "--series=1.9")
  assert done.returncode == 2
  assert "1.2.3 (series 4, " in done.stderr
  assert_anonymous(done.stderr)
  done = run_command("attn_unet_jax.predict", *flags, "--series=1.2.4")
  assert done.returncode == 0, done.stderr
  assert nib.load(output).shape == (*image.shape[:2], 9)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="no real scans beside the project")
def test_a_real_scan_gives_the_same_mask_from_every_orientation(trained, tmp_path):
  scan = read_nifti(SHARED / "ct_nifti_3mm" / "ct.nii.gz")
  variants = {"a": scan, "b": on_axes(scan, "LPS"), "c": on_axes(scan, "SRA"), "d": turn_axes(scan)}
  for name, volume in variants.items():
    write_nifti(tmp_path / "scans" / f"{name}.nii.gz", volume)
  flags = (f"--workdir={trained[0]}", f"--input={tmp_path}/scans", f"--output={tmp_path}/masks")
  done = run_command("attn_unet_jax.predict", *flags)
  assert done.returncode == 0, done.stderr
  masks = {name: read_label(tmp_path / "masks" / f"{name}.nii.gz") for name in variants}
  reference = to_canonical(masks["a"]).array
  assert 0 < reference.mean() < 1
  for name, mask in masks.items():
    np.testing.assert_array_equal(to_canonical(mask).array, reference)
    np.testing.assert_allclose(mask.affine, variants[name].affine, atol=1e-4)


@pytest.mark.slow
def test_a_signal_saves_and_leaves_with_its_status_and_the_run_goes_on(data_dir, tmp_path):
  """SIGTERM, then, when the run has gone on, SIGINT; each twice, as an impatient person does."""
  workdir, reached = tmp_path / "run", 0
  flags = run_flags(data_dir, workdir, train__epochs=500, train__validate_every=500)
  for number, begins in ((signal.SIGTERM, "new run"), (signal.SIGINT, "resuming")):
    process = subprocess.Popen(
      [sys.executable, "-m", MAIN, *flags],
      cwd=ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    stop_when(process, workdir / "checkpoints" / str(reached + 6), number)
    time.sleep(0.2)
    process.send_signal(number)
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (128 + number, ""), output
    assert output.startswith("device: cpu, ")
    assert output.splitlines()[1].startswith(begins)
    assert json.loads((workdir / "run.json").read_text())["exit"].startswith("Interrupted")
    steps = list_saved_steps(workdir / "checkpoints")
    assert f"saved after step {steps[-1]}," in output
    assert steps[-1] >= reached + 6
    reached = steps[-1] // 3 * 3  # a checkpoint of each epoch's end comes by


def test_another_config_in_the_workdir_is_refused_and_nothing_is_lost(trained, data_dir):
  workdir, _ = trained

  def held():  # all but who asked last
    files = (p for p in workdir.rglob("*") if p.name != ".lock")
    return sorted((p, p.stat().st_mtime_ns) for p in files)

  before = held()
  done = run_command(MAIN, *run_flags(data_dir, workdir, **TRAINED), "--config.seed=5")
  assert done.returncode == 2
  assert "seed: 0 there, 5 now" in done.stderr
  assert held() == before


@pytest.mark.parametrize(
  ("make", "complaint"),
  [
    (lambda p, scan: None, "not found"),
    (lambda p, scan: p.write_bytes(scan.read_bytes()[:2000]), "scan.nii.gz"),
    pytest.param(lambda p, scan: p.write_text("no scan"), "scan.nii.gz", marks=SLOW),
    pytest.param(
      lambda p, scan: write_nifti(p, Volume(np.full((9, 9, 9), np.nan), np.eye(4))),
      "NaN",
      marks=SLOW,
    ),
    pytest.param(
      lambda p, scan: write_nifti(p, Volume(np.full((9, 9, 9), 7), np.eye(4))),
      "constant",
      marks=SLOW,
    ),
    (lambda p, scan: nib.save(nib.Nifti1Image(np.ones((9, 9)), np.eye(4)), p), "2-D"),
    pytest.param(
      lambda p, scan: nib.save(nib.Nifti1Image(np.ones((9, 9, 9, 2)), np.eye(4)), p),
      "4-D",
      marks=SLOW,
    ),
  ],
)
def test_a_bad_scan_ends_predict_with_status_2_and_no_output(
  trained, scan, tmp_path, make, complaint
):
  path, output = tmp_path / "scan.nii.gz", tmp_path / "out" / "mask.nii.gz"
  make(path, scan)
  flags = (f"--workdir={trained[0]}", f"--input={path}", f"--output={output}")
  done = run_command("attn_unet_jax.predict", *flags)
  assert done.returncode == 2, done.stderr
  assert done.stderr.startswith("error: ")
  assert done.stderr.count("\n") == 1
  assert complaint in done.stderr
  assert not output.parent.exists() or not list(output.parent.iterdir())


@pytest.mark.slow
def test_outputs_that_do_not_fit_are_refused(trained, scan, tmp_path):
  (tmp_path / "file").write_text("")
  for output, complaint in (
    (tmp_path / "mask.txt", "must end in .nii"),
    (tmp_path / "file" / "mask.nii.gz", "cannot be written"),
  ):
    flags = (f"--workdir={trained[0]}", f"--input={scan}", f"--output={output}")
    done = run_command("attn_unet_jax.predict", *flags)
    assert done.returncode == 2
    assert complaint in done.stderr


def test_predict_does_not_overwrite_the_scan(trained, scan):
  before = scan.read_bytes()
  for flags in ((f"--input={scan}", f"--output={scan}"),
                (f"--input={scan.parent}", f"--output={scan.parent}")):  # fmt: skip
    done = run_command("attn_unet_jax.predict", f"--workdir={trained[0]}", *flags)
    assert done.returncode == 2
    assert "would overwrite the scan" in done.stderr
  assert scan.read_bytes() == before


def test_sigterm_outside_training_is_143_too():
  """Any command, once it has begun: nothing is to be saved, and the status says what happened."""
  code = (
    "import time; from attn_unet_jax.runtime.process import run_command\n"
    "def main():\n  print('begun', flush=True)\n  time.sleep(300)\n"
    "run_command(main)"
  )
  process = subprocess.Popen(
    [sys.executable, "-c", code],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == "begun\n"
  process.send_signal(signal.SIGTERM)
  assert process.communicate(timeout=60) == ("", "")
  assert process.returncode == 143


def test_a_reader_that_leaves_early_is_no_traceback():
  code = (
    "from attn_unet_jax.runtime.process import run_command\n"
    "def main():\n  while True:\n    print('line', flush=True)\n"
    "run_command(main)"
  )
  with subprocess.Popen(
    [sys.executable, "-c", code],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  ) as process:
    assert process.stdout.readline() == "line\n"
    process.stdout.close()
    assert process.stderr.read() == ""
  assert process.returncode == 141


@pytest.mark.slow
def test_evaluate_that_cannot_write_is_one_line(trained):
  blocked = trained[0] / "predictions" / "validation"
  shutil.rmtree(blocked, ignore_errors=True)
  blocked.write_text("")
  done = run_command("attn_unet_jax.evaluate", f"--workdir={trained[0]}", "--part=validation")
  blocked.unlink()
  assert done.returncode == 2
  assert done.stderr.startswith("error: ")
  assert str(blocked) in done.stderr


def test_a_folder_without_a_run_is_refused(scan, tmp_path):
  output = tmp_path / "new" / "folder" / "m.nii.gz"
  flags = (f"--workdir={tmp_path}", f"--input={scan}", f"--output={output}")
  done = run_command("attn_unet_jax.predict", *flags)
  assert done.returncode == 2
  assert "config.json: not found" in done.stderr
  assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_sigterm_in_a_compilation_is_acknowledged_at_once_and_obeyed_at_its_end(data_dir, tmp_path):
  """With nothing compiled before, and before the first step is taken."""
  workdir, cache = tmp_path / "run", tmp_path / "cache"
  flags = run_flags(data_dir, workdir, train__steps_per_epoch=5000)
  said = []
  # However fast the machine compiles it: else the line for which the signal waits is left out.
  announce = f"from attn_unet_jax.training import pace; pace._FAST_S = 0; import {MAIN} as command"
  with subprocess.Popen(
    [sys.executable, "-c", f"{announce}; command.run()", *flags],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    text=True,
    env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(cache)},
  ) as process:
    for line in process.stdout:
      said.append(line)
      if line.startswith("compiling the training step, about "):
        process.send_signal(signal.SIGTERM)
  assert process.returncode == 143
  at = next(n for n, line in enumerate(said) if line.startswith("compiling the training step"))
  assert said[at + 1].startswith("signal 15 has arrived: stops when this is done: compiling")
  assert said[at + 2].startswith("stopped by signal 15; saved after step 0, ")
