"""Scans are sent as jobs, several at once, and refused as `predict` refuses them."""

import errno
import json
import threading
import zipfile

import numpy as np
import pydicom
import pytest

pytest.importorskip("starlette")
pytest.importorskip("httpx2")

from starlette.testclient import TestClient

from attn_unet_jax.runtime.deadline import check_deadline
from attn_unet_jax.serving.application import break_off_jobs
from attn_unet_jax.volumes.nifti import read_label, write_nifti
from tests.dicom_sources import read_frame_points, write_source
from tests.serving.services import AFFINE, SHAPE, open_service, pack_scan, predict_half, send, wait


def test_a_scan_becomes_a_mask_on_its_grid_and_nothing_is_left(tmp_path, monkeypatch):
  monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
  (tmp_path / "temporary").mkdir()
  with open_service() as client:
    job = send(client, pack_scan(tmp_path))
    said = wait(client, job)
    assert said["state"] == "done", said
    assert (said["run"], said["checkpoint_step"], said["engine"]) == ("a", 7, "a network")
    assert said["scan"] == "ct.nii.gz"
    (pancreas,) = said["classes"]
    assert pancreas["voxels"] == np.prod(SHAPE) // 2
    mask = client.get(f"{job}/mask")
    assert mask.headers["content-type"] == "application/gzip"
    (tmp_path / "mask.nii.gz").write_bytes(mask.content)
    read = read_label(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(read.affine, AFFINE)
    assert read.array.sum() == pancreas["voxels"]
    assert {path.name for path in tmp_path.glob("temporary/*/jobs/*/*")} == {
      "mask.nii.gz",
      "mask.json",
    }  # and no scan
    assert client.delete(job).json()["removed"] is True
    assert not any(tmp_path.glob("temporary/*/jobs/*"))
    assert client.get(job).status_code == 404
  assert not any((tmp_path / "temporary").iterdir())


def test_a_bad_scan_is_refused_by_its_own_name_and_the_next_one_is_answered(tmp_path):
  with open_service() as client:
    bad, good = send(client, pack_scan(tmp_path, bad=True)), send(client, pack_scan(tmp_path))
    said = wait(client, bad)
    assert (said["state"], said["status"]) == ("failed", 422)
    assert said["error"].startswith("ct.nii.gz: 1 of 336 voxels are NaN")
    refused = client.get(f"{bad}/mask")
    assert (refused.status_code, refused.json()) == (422, {"error": said["error"]})
    assert wait(client, good)["state"] == "done"


@pytest.mark.parametrize(
  ("name", "query", "status", "said"),
  [
    ("scan.mha", {}, 415, "scan.mha: send .nii, .nii.gz, or a .zip of a DICOM series"),
    ("a.nii", {"output_format": "png"}, 422, "output_format=png: none of nifti, dicom-seg"),
    ("a.nii", {"series": "../x"}, 422, "series=../x: no DICOM UID"),
    ("a.nii", {"accept": "all"}, 422, "accept=all: 'all' is none of hounsfield"),
    ("a.nii", {"store": "true"}, 422, "no archive: it was started without --dicomweb"),
    (None, {"series": "1.2.3"}, 422, "no archive: it was started without --dicomweb"),
    (None, {}, 422, "no file: send a NIfTI file"),
  ],
)
def test_a_request_that_cannot_be_answered_is_refused_at_once(name, query, status, said):
  with open_service() as client:
    files = {"file": (name, b"0")} if name else None
    refused = client.post("/jobs", files=files, params=query)
    assert refused.status_code == status
    assert said in refused.json()["error"]


def test_what_is_no_call_or_no_form_is_refused_in_one_line_too():
  form = {"Content-Type": "multipart/form-data; boundary=x"}
  with open_service() as client:
    assert client.get("/train/").json() == {"error": "Not Found"}
    refused = client.post("/jobs", content=b"--y", headers=form)
    assert refused.status_code == 400
    assert list(refused.json()) == ["error"]


def test_a_name_of_a_client_is_no_path_here(tmp_path):
  with open_service() as client:
    job = send(client, pack_scan(tmp_path), name="../../../\u202ect.nii.gz")
    assert wait(client, job)["scan"] == r"\u202ect.nii.gz"


def test_as_many_wait_as_may_and_what_is_removed_is_not_computed(tmp_path):
  entered, go, computed = threading.Event(), threading.Event(), []

  def hold(volume):
    computed.append(volume)
    entered.set()
    assert go.wait(60)
    return predict_half(volume)

  scan = pack_scan(tmp_path)
  with open_service(hold, max_waiting=2) as client:
    first = send(client, scan)
    assert entered.wait(60)
    second, third = send(client, scan), send(client, scan)
    assert (client.get(first).json()["state"], client.get(third).json()["ahead"]) == ("running", 2)
    assert client.get("/health").json() == {"status": "ok", "waiting": 2}
    refused = client.post("/jobs", files={"file": ("ct.nii.gz", scan)})
    assert refused.status_code == 503
    assert "2 scans are waiting already" in refused.json()["error"]
    assert client.get(f"{third}/mask").status_code == 409
    client.delete(second)
    fourth = send(client, scan)  # in the place of the one that is gone
    go.set()
    assert wait(client, third)["state"] == wait(client, fourth)["state"] == "done"
    assert len(computed) == 3


def test_the_scan_of_a_job_that_is_removed_goes_before_its_turn(tmp_path, monkeypatch):
  monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
  (tmp_path / "temporary").mkdir()
  entered, go = threading.Event(), threading.Event()

  def hold(volume):
    entered.set()
    assert go.wait(60)
    return predict_half(volume)

  def list_jobs():
    return [path.name for path in tmp_path.glob("temporary/*/jobs/*")]

  scan = pack_scan(tmp_path)
  with open_service(hold, max_waiting=1) as client:
    first = send(client, scan)
    assert entered.wait(60)
    for _ in range(3):
      client.delete(send(client, scan))
    assert list_jobs() == [first.rpartition("/")[2]]
    client.delete(first)  # which the network is reading
    assert len(list_jobs()) == 1
    go.set()
    assert wait(client, send(client, scan))["state"] == "done"
    assert len(list_jobs()) == 1


def test_work_that_takes_too_long_is_broken_off(tmp_path):
  def never(volume):
    while True:
      check_deadline()

  with open_service(never, max_seconds=0.2) as client:
    said = wait(client, send(client, pack_scan(tmp_path)))
    assert (said["status"], said["error"]) == (504, "broken off: not done within 0.2 s")


def test_a_fault_of_the_program_ends_one_request_alone(tmp_path, capsys):
  faults = iter((True, False))

  def fail_once(volume):
    assert not next(faults), "a fault"
    return predict_half(volume)

  with open_service(fail_once) as client:
    jobs = [send(client, pack_scan(tmp_path)) for _ in range(2)]
    said = [wait(client, job) for job in jobs]
  assert said[0]["status"] == 500
  assert "a fault of the service" in said[0]["error"]
  assert said[1]["state"] == "done"
  assert "AssertionError: a fault" in capsys.readouterr().err


def test_a_full_disk_is_named_and_a_fault_before_the_queue_is_told_in_one_line(
  tmp_path, monkeypatch
):
  errors = iter((OSError(errno.ENOSPC, "No space left on device", "/secret"), ValueError("secret")))

  def fail(*_):
    raise next(errors)

  monkeypatch.setattr("attn_unet_jax.serving.job_routes.save_scan", fail)
  with open_service() as client:
    client = TestClient(client.app, client.base_url, raise_server_exceptions=False)
    said = [client.post("/jobs", files={"file": ("a.nii", b"0")}) for _ in range(2)]
  assert [one.status_code for one in said] == [507, 500]
  assert said[0].json() == {"error": "the scan cannot be taken: No space left on device"}
  assert said[1].json() == {"error": "a fault of the service; its log has more"}


def test_a_disk_that_is_full_when_the_mask_is_written_is_no_fault_of_the_scan(
  tmp_path, monkeypatch
):
  def fail(path):
    raise OSError(errno.ENOSPC, "No space left on device")

  scan, full = pack_scan(tmp_path), "the mask cannot be written (No space left on device)"
  with open_service() as client:
    for module in ("volumes.nifti", "runtime.files"):  # of the mask, and of its JSON
      with monkeypatch.context() as patched:
        patched.setattr(f"attn_unet_jax.{module}.atomic_write", fail)
        said = wait(client, send(client, scan))
      assert (said["status"], said["error"]) == (507, full)


def test_all_is_broken_off_at_a_signal(tmp_path):
  entered = threading.Event()

  def never(volume):
    while True:
      entered.set()
      check_deadline()

  with open_service(never) as client:
    job = send(client, pack_scan(tmp_path))
    assert entered.wait(60)
    break_off_jobs(client.app)
    assert "no longer wanted" in wait(client, job)["error"]


def test_an_answer_that_nobody_fetches_expires(tmp_path, monkeypatch):
  monkeypatch.setattr("attn_unet_jax.serving.job_queue._SWEEP_EVERY_S", 0.01)
  with open_service(expiry_seconds=0.01) as client:
    job = send(client, pack_scan(tmp_path))
    for _ in range(1000):
      if client.get(job).status_code == 404:
        return
    pytest.fail("it is still there")


def test_masks_are_kept_where_that_is_asked_for(tmp_path):
  kept = tmp_path / "kept"
  kept.mkdir()
  with open_service(keep=kept) as client:
    job = send(client, pack_scan(tmp_path))
    wait(client, job)
  name = job.rpartition("/")[2]
  assert {path.name for path in kept.iterdir()} == {f"{name}.nii.gz", f"{name}.json"}
  assert json.loads((kept / f"{name}.json").read_text())["mask"] == f"{name}.nii.gz"
  assert read_label(kept / f"{name}.nii.gz").array.any()


def test_a_zip_of_a_series_becomes_a_dicom_segmentation(tmp_path):
  pytest.importorskip("highdicom")
  source = write_source(tmp_path / "series", "zip")
  with open_service() as client:
    job = send(client, source.read_bytes(), "study.zip", output_format="dicom-seg")
    said = wait(client, job)
    assert said["state"] == "done", said
    mask = client.get(f"{job}/mask")
    assert mask.headers["content-type"] == "application/dicom"
    (tmp_path / "m.dcm").write_bytes(mask.content)
    assert len(read_frame_points(tmp_path / "m.dcm", 1)) == said["classes"][0]["voxels"] > 0
    refused = wait(client, send(client, pack_scan(tmp_path), output_format="dicom-seg"))
    assert refused["status"] == 422
    assert refused["error"].startswith("ct.nii.gz: no DICOM")


def test_one_of_several_series_in_a_zip_is_chosen(tmp_path):
  for name in "ab":
    write_source(tmp_path / name, "plain")
  with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
    for name in "ab":
      for file in sorted((tmp_path / name).iterdir()):
        slice_ = pydicom.dcmread(file)
        slice_.SeriesInstanceUID = uid = f"1.2.3.{ord(name)}"
        slice_.SOPInstanceUID = f"{slice_.SOPInstanceUID}.{ord(name)}"[-64:].strip(".")
        slice_.file_meta.MediaStorageSOPInstanceUID = slice_.SOPInstanceUID
        slice_.save_as(file)
        archive.write(file, f"{name}/{file.name}")
  content = (tmp_path / "two.zip").read_bytes()
  with open_service() as client:
    refused = wait(client, send(client, content, "two.zip"))
    assert refused["status"] == 422
    assert uid in refused["error"]
    assert wait(client, send(client, content, "two.zip", series=uid))["state"] == "done"


def test_a_doubt_is_accepted_by_the_client_that_knows_better(tmp_path):
  from attn_unet_jax.volumes.volume import Volume

  values = np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)
  write_nifti(tmp_path / "picture.nii.gz", Volume(values, np.eye(4)))
  content = (tmp_path / "picture.nii.gz").read_bytes()
  with open_service() as client:
    assert "accept=hounsfield" in wait(client, send(client, content))["error"]
    said = wait(client, send(client, content, accept="hounsfield"))
    assert said["state"] == "done"
    assert any(line.startswith("accepted (hounsfield): ct.nii.gz") for line in said["warnings"])
