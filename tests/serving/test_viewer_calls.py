"""The calls of MONAI Label's clients, in the forms in which 3D Slicer and OHIF make them."""

import email
import gc
import gzip
import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("httpx2")

from attn_unet_jax.runtime.deadline import check_deadline
from attn_unet_jax.serving import scan_files
from attn_unet_jax.serving.scan_files import SentFile
from attn_unet_jax.volumes.nifti import read_label
from tests.serving.services import SHAPE, open_service, pack_scan, predict_half, send, wait


def read_parts(answer):
  """The parts of a response by their names: their files' names, and contents."""
  head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
  message = email.message_from_bytes(head + answer.content)
  return {
    part.get_param("name", header="content-disposition"): (
      part.get_filename(),
      part.get_payload(decode=True),
    )
    for part in message.get_payload()
  }


def read_nrrd(content):
  """The header by its keys, and the voxels as [X, Y, Z]."""
  header, _, body = content.partition(b"\n\n")
  lines = [line.partition(": ") for line in header.decode().split("\n")[1:]]
  keys = {key: value for key, _, value in lines}
  body = gzip.decompress(body) if keys["encoding"] == "gzip" else body
  shape = tuple(map(int, keys["sizes"].split()))
  return keys, np.frombuffer(body, np.uint8).reshape(shape, order="F")


def test_info_has_what_the_viewers_read():
  with open_service() as client:
    info = client.get("/info/").json()
  assert info["labels"] == ["pancreas"]
  assert info["models"]["a"]["type"] == "segmentation"
  assert info["models"]["a"]["labels"] == {"pancreas": 1}
  empty = ("trainers", "strategies", "scoring", "train_stats")
  assert all(info[key] == {} for key in empty)
  assert info["datastore"] == {"total": 0, "completed": 0, "label_tags": {}}
  assert "config" not in info  # by which 3D Slicer knows a server that is too old


def test_3d_slicer_sends_a_volume_by_its_name_and_gets_json_and_nrrd(tmp_path):
  params = {"params": json.dumps({"client_id": "user-xyz"})}
  asked = {"params": json.dumps({"client_id": "user-xyz", "result_extension": ".nrrd"})}
  with open_service() as client:
    sent = client.put(
      "/datastore/?image=CT+1", data=params, files={"file": ("x.nii.gz", pack_scan(tmp_path))}
    )
    assert sent.json() == {"image": "CT 1"}
    answer = client.post("/infer/a?image=CT+1", files={"params": (None, asked["params"])})
    assert answer.status_code == 200, answer.text
    assert int(answer.headers["content-length"]) == len(answer.content)
    parts = read_parts(answer)
    said = json.loads(parts["params"][1])
    assert said["label_names"] == {"pancreas": 1}
    assert said["classes"][0]["voxels"] == np.prod(SHAPE) // 2
    assert parts["image"][0] == "mask.nrrd"
    keys, voxels = read_nrrd(parts["image"][1])
    assert keys["space"] == "left-posterior-superior"
    assert keys["space directions"] == "(1.0,0.0,0.0) (0.0,-1.0,0.0) (0.0,0.0,1.0)"
    assert keys["space origin"] == "(-5.0,6.0,7.0)"
    image = client.post("/infer/a?image=CT+1&output=image", data=params)
    (tmp_path / "m.nii.gz").write_bytes(image.content)
    np.testing.assert_array_equal(read_label(tmp_path / "m.nii.gz").array, voxels)


def test_a_session_keeps_its_scan_until_it_is_removed(tmp_path):
  with open_service() as client:
    sent = client.put("/session/", files=[("files", ("x.nii.gz", pack_scan(tmp_path)))]).json()
    session = sent["session_id"]
    assert client.get(f"/session/{session}").status_code == 200
    asked = f"/infer/a?image=CT&session_id={session}&output=json"
    for _ in range(2):
      assert client.post(asked, data={"params": "{}"}).json()["scan"] == "x.nii.gz"
    assert client.delete(f"/session/{session}").status_code == 200
    assert client.get(f"/session/{session}").status_code == 404
    refused = client.post(asked, data={"params": "{}"})
    assert refused.status_code == 404
    assert f"session '{session}'" in refused.json()["error"]


def test_two_viewers_that_use_one_name_get_their_own_masks(tmp_path):
  with open_service() as client:
    for user in "ab":
      client.put(
        "/datastore/?image=CT",
        data={"params": json.dumps({"client_id": user})},
        files={"file": (f"{user}.nii.gz", pack_scan(tmp_path))},
      )
    for user in "ab":
      asked = {"params": json.dumps({"client_id": user})}
      said = client.post("/infer/a?image=CT&output=json", data=asked).json()
      assert said["scan"] == f"{user}.nii.gz"
    other = {"params": json.dumps({"client_id": "c"})}
    assert client.post("/infer/a?image=CT&output=json", data=other).status_code == 404


def test_a_scan_that_is_replaced_while_its_job_waits_is_the_one_that_is_segmented(tmp_path):
  """Each waiting job has the scan that its viewer meant when it asked."""
  begun, replaced, seen = threading.Event(), threading.Event(), []

  def predict(volume):
    if not begun.is_set():
      begun.set()
      assert replaced.wait(60)
    seen.append(int(volume.array[-1, 0, 0]))  # the file stores X the other way
    return predict_half(volume)

  def put(client, value):
    files = {"file": ("ct.nii.gz", pack_scan(tmp_path, value=value))}
    assert client.put("/datastore/?image=CT", files=files).status_code == 200

  with open_service(predict) as client, ThreadPoolExecutor(1) as pool:
    job = send(client, pack_scan(tmp_path, value=11))
    assert begun.wait(60)
    put(client, 22)
    waiting = pool.submit(client.post, "/infer/a?image=CT&output=json", data={"params": "{}"})
    while client.get("/health").json()["waiting"] < 1:
      time.sleep(0.01)
    put(client, 33)
    replaced.set()
    assert waiting.result(60).status_code == 200
    assert wait(client, job)["state"] == "done"
  assert seen == [11, 22]


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("links", [True, False])
def test_a_lent_scan_stays_when_the_one_that_is_kept_goes(tmp_path, monkeypatch, many, links):
  def refuse(*_):
    raise PermissionError("no links on this disk")

  if not links:
    monkeypatch.setattr(scan_files.os, "link", refuse)
  (tmp_path / "held").mkdir()
  (tmp_path / "job").mkdir()
  files = [SentFile(f"{name}.nii", io.BytesIO(b"abc")) for name in ("a", "b")[: 1 + many]]
  held = scan_files.ScanFiles(tmp_path / "held", 60)
  held.add("CT", files)
  lent = held.lend("CT", tmp_path / "job")
  held.remove("CT")
  assert not any((tmp_path / "held").rglob("*.*"))
  read = sorted(lent.path.iterdir()) if many else [lent.path]
  assert [path.read_bytes() for path in read] == [b"abc"] * len(files)
  assert held.lend("CT", tmp_path / "job") is None


def test_a_series_is_lent_whole_while_it_is_replaced(tmp_path):
  for name in ("held", "jobs"):
    (tmp_path / name).mkdir()
  held = scan_files.ScanFiles(tmp_path / "held", 60)
  ended = threading.Event()

  def add():
    held.add("CT", [SentFile(f"{n}.dcm", io.BytesIO(b"abc")) for n in range(40)])

  def replace():
    while not ended.is_set():
      add()

  add()

  with ThreadPoolExecutor(1) as pool:
    replacing = pool.submit(replace)
    counts = set()
    for number in range(200):
      job = tmp_path / "jobs" / str(number)
      job.mkdir()
      lent = held.lend("CT", job)
      counts.add(len([*lent.path.iterdir()]))
    ended.set()
    replacing.result(60)
  assert counts == {40}


def test_viewers_cannot_fill_the_disk(tmp_path, monkeypatch):
  monkeypatch.setattr("attn_unet_jax.serving.scan_files._MAX_HELD", 1)
  scan = pack_scan(tmp_path)
  with open_service() as client:
    statuses = [
      client.put(f"/datastore/?image={name}", files={"file": ("x.nii.gz", scan)}).status_code
      for name in "aab"
    ]
  assert statuses == [200, 200, 503]


@pytest.mark.parametrize(
  ("path", "params", "status", "said"),
  [
    ("/infer/b?image=x", "{}", 404, "no model 'b'; this service has 'a'"),
    ("/infer/a?image=x&output=png", "{}", 422, "output=png: none of image, json, all, dicom_seg"),
    ("/infer/a?image=x", "[]", 422, "params: must be an object in JSON"),
    ("/infer/a?image=x", "{", 422, "params: must be an object in JSON"),
    ("/infer/a?image=x", '{"result_extension": ".mha"}', 422, "result_extension=.mha: none of"),
    (
      "/infer/a?image=x",
      '{"result_extension": ".nrrd", "result_dtype": "float32"}',
      422,
      "result_dtype=float32: none of uint8, uint16",
    ),
    ("/infer/a?image=1.2.3", "{}", 404, "image '1.2.3'"),
    ("/infer/a?image=x", '{"series": 1.2}', 422, "series=1.2: no DICOM UID"),
  ],
)
def test_a_call_that_cannot_be_answered_is_refused(path, params, status, said):
  with open_service() as client:
    refused = client.post(path, data={"params": params})
    assert refused.status_code == status
    assert said in refused.json()["error"]


def test_a_scan_that_is_refused_and_one_that_is_compressed(tmp_path):
  with open_service() as client:
    refused = client.post("/infer/a", files={"file": ("ct.nii.gz", pack_scan(tmp_path, bad=True))})
    assert (refused.status_code, refused.json()["error"][:11]) == (422, "ct.nii.gz: ")
    params = {"result_extension": ".nrrd", "result_compress": True}
    answer = client.post(
      "/infer/a?output=image",
      data={"params": json.dumps(params)},
      files={"file": ("ct.nii.gz", pack_scan(tmp_path))},
    )
    assert read_nrrd(answer.content)[0]["encoding"] == "gzip"


def test_ohif_gets_voxels_of_the_type_that_it_asks_for(tmp_path):
  # As its extension before 0.8.5 asks. It reads the voxels as uint16, and fails without centroids.
  params = {"result_extension": ".nrrd", "result_dtype": "uint16", "result_compress": False}
  scan = pack_scan(tmp_path)
  with open_service() as client:
    answer = client.post(
      "/infer/a?output=all",
      data={"params": json.dumps(params)},
      files={"file": ("ct.nii.gz", scan)},
    )
    parts = read_parts(answer)
    assert json.loads(parts["params"][1])["centroids"] == {}
    voxels = np.frombuffer(parts["image"][1].partition(b"\n\n")[2], "<u2")
    assert (voxels.size, voxels.sum()) == (np.prod(SHAPE), np.prod(SHAPE) // 2)
    params["result_extension"] = ".nii.gz"  # whose readers go by its header
    asked = {"params": json.dumps({**params, "result_dtype": "float32"})}
    files = {"file": ("ct.nii.gz", scan)}
    assert client.post("/infer/a?output=image", data=asked, files=files).status_code == 200


def test_the_scan_of_a_client_that_goes_away_is_broken_off(tmp_path, capsys, caplog):
  ended = threading.Event()

  def never(volume):
    try:
      while True:
        check_deadline()
    finally:
      ended.set()

  async def leave(app, request):
    """Sends a scan, then nothing but the word that the client is gone."""
    headers = [(name.lower(), value) for name, value in request.headers.raw]
    scope = {"type": "http", "method": "POST", "path": "/infer/a", "query_string": b""}
    messages = [{"type": "http.request", "body": request.read()}]

    async def receive():
      return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(message):
      sent.append(message)

    sent = []
    await app({**scope, "headers": headers, "client": None}, receive, send)
    return sent[0]["status"]

  with open_service(never) as client:
    files = {"file": ("a.nii.gz", pack_scan(tmp_path))}
    request = client.build_request("POST", "/infer/a", files=files)
    assert client.portal.call(leave, client.app, request) == 499
    assert ended.wait(60)
    assert client.get("/health").json()["waiting"] == 0
  gc.collect()
  assert "never retrieved" not in capsys.readouterr().err + caplog.text
