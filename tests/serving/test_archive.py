"""Series come from a DICOM archive, and masks go there: one drawn here, and a real Orthanc."""

import errno
import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pydicom
import pytest

pytest.importorskip("starlette")
pytest.importorskip("httpx2")

from attn_unet_jax.runtime.deadline import Deadline, keep_deadline
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.serving.archive import (
  Archive,
  fetch_series,
  is_uid,
  read_archive,
  store_instance,
)
from attn_unet_jax.serving.errors import RequestError
from tests.dicom_sources import read_frame_points, write_source
from tests.serving.services import open_service, wait

SERIES, STUDY = "1.2.3", "1.2"  # the series is that of `slices_of`


class DrawnArchive(http.server.BaseHTTPRequestHandler):
  """Holds one series, and remembers what is stored; its `server` has both."""

  def do_GET(self):
    self.server.asked.append((self.path, dict(self.headers)))
    if self.path.startswith(f"/web/series?SeriesInstanceUID={SERIES}&"):
      study = {"0020000D": {"vr": "UI", "Value": [STUDY]}}
      self.answer(200, "application/dicom+json", json.dumps([study]).encode())
    elif self.path.startswith("/web/series?"):
      self.answer(204, "application/dicom+json", b"")
    elif self.path == f"/web/studies/{STUDY}/series/{SERIES}":
      head = b"--b\r\nContent-Type: application/dicom\r\n\r\n"
      body = b"\r\n".join(head + file for file in self.server.files) + b"\r\n--b--\r\n"
      kind = 'multipart/related; type="application/dicom"; boundary="b"'
      self.answer(200, kind, body[: len(body) - self.server.lost])
    elif self.path.startswith("/moved/"):
      self.send_response(302)
      self.send_header("Location", self.path.replace("/moved/", "/web/"))
      self.end_headers()
    else:
      self.answer(404, "text/plain", b"")

  def do_POST(self):
    body = self.rfile.read(int(self.headers["Content-Length"]))
    self.server.stored.append((self.path, dict(self.headers), body))
    self.answer(*self.server.says)

  def answer(self, status, kind, body):
    self.send_response(status)
    self.send_header("Content-Type", kind)
    self.send_header("Content-Length", str(len(body)))
    self.end_headers()
    self.wfile.write(body)

  def log_message(self, *_):
    pass


@pytest.fixture
def drawn(tmp_path):
  source = write_source(tmp_path / "source", "shuffled")
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), DrawnArchive) as server:
    server.files = [file.read_bytes() for file in sorted(source.iterdir())]
    server.asked, server.stored, server.lost = [], [], 0
    server.says = 200, "application/dicom+json", b'{"00081198": {"vr": "SQ"}}'  # as Orthanc's
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    server.archive = Archive(f"http://127.0.0.1:{server.server_port}/web", "Bearer secret")
    yield server
    server.shutdown()
    thread.join()


def test_a_series_is_fetched_to_the_byte(drawn, tmp_path):
  fetch_series(drawn.archive, SERIES, tmp_path / "fetched", 1 << 20)
  found = [
    path.read_bytes()
    for path in sorted((tmp_path / "fetched").iterdir(), key=lambda p: int(p.stem))
  ]
  assert found == drawn.files
  assert all(headers["Authorization"] == "Bearer secret" for _, headers in drawn.asked)
  assert 'type="application/dicom"' in drawn.asked[1][1]["Accept"]


def test_a_disk_that_does_not_hold_a_series_is_no_fault_of_the_program(drawn, monkeypatch):
  def fail(*_):
    raise OSError(errno.ENOSPC, "No space left on device", "/secret")

  monkeypatch.setattr("attn_unet_jax.serving.segmenter.fetch_series", fail)
  with open_service(archive=drawn.archive) as client:
    said = wait(client, client.post("/jobs", params={"series": SERIES}).headers["Location"])
  assert said["status"] == 507
  assert said["error"] == "the scan cannot be taken: No space left on device"


def test_what_an_archive_does_not_have_or_do_is_said(drawn, tmp_path):
  with pytest.raises(RequestError, match=r"has no series 1\.9") as missing:
    fetch_series(drawn.archive, "1.9", tmp_path / "a", 1 << 20)
  with pytest.raises(RequestError, match="sends more than the 100 bytes") as large:
    fetch_series(drawn.archive, SERIES, tmp_path / "b", 100)
  drawn.says = 409, "application/dicom+json", b"{}"
  with pytest.raises(RequestError, match="answered 409 Conflict") as conflict:
    store_instance(drawn.archive, b"DICM")
  reason = {"00081197": {"vr": "US", "Value": [272]}}
  said = json.dumps({"00081198": {"vr": "SQ", "Value": [reason]}}).encode()
  drawn.says = 202, "application/dicom+json", said
  with pytest.raises(RequestError, match=r"did not store the mask \(reason 272\)"):
    store_instance(drawn.archive, b"DICM")
  with pytest.raises(RequestError, match="does not answer") as silent:
    store_instance(Archive("http://127.0.0.1:1"), b"DICM")
  statuses = [one.value.status for one in (missing, large, conflict, silent)]
  assert statuses == [404, 413, 502, 502]
  assert not list(tmp_path.glob("[ab]"))


def test_a_part_of_a_series_is_not_taken_for_the_whole(drawn, tmp_path):
  drawn.lost = 100
  with pytest.raises(RequestError, match=r"broke off within series 1\.2\.3"):
    fetch_series(drawn.archive, SERIES, tmp_path / "a", 1 << 20)
  assert not (tmp_path / "a").exists()


def test_the_header_that_proves_who_asks_follows_no_redirection(drawn, tmp_path):
  moved = Archive(drawn.archive.url.replace("/web", "/moved"), "Bearer secret")
  with pytest.raises(RequestError, match="answered 302 Found"):
    fetch_series(moved, SERIES, tmp_path / "a", 1 << 20)
  assert [path.partition("?")[0] for path, _ in drawn.asked] == ["/moved/series"]


def test_an_archive_does_not_delay_what_is_not_wanted_any_more(drawn, tmp_path):
  with keep_deadline(Deadline(0)), pytest.raises(UserError, match="broken off"):
    fetch_series(drawn.archive, SERIES, tmp_path / "a", 1 << 20)


def test_an_instance_is_sent_in_one_part(drawn):
  store_instance(drawn.archive, b"\0DICM\r\n--")
  ((path, headers, body),) = drawn.stored
  boundary = re.fullmatch(
    r'multipart/related; type="application/dicom"; boundary=(\w+)', headers["Content-Type"]
  )[1]
  assert path == "/web/studies"
  assert body == (
    f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    + b"\0DICM\r\n--"
    + f"\r\n--{boundary}--\r\n".encode()
  )


def test_ohif_names_a_series_of_the_archive_and_a_job_stores_its_mask(drawn, tmp_path):
  pytest.importorskip("highdicom")
  params = {"result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False}
  with open_service(archive=drawn.archive) as client:
    answer = client.post(
      f"/infer/a?image={SERIES}&output=image", files={"params": (None, json.dumps(params))}
    )
    assert answer.status_code == 200, answer.text
    assert b"encoding: raw" in answer.content.partition(b"\n\n")[0]
    asked = {"series": SERIES, "output_format": "dicom-seg", "store": "true"}
    job = client.post("/jobs", params=asked).headers["Location"]
    said = wait(client, job)
    assert said["stored"] is True
    sent = client.get(f"{job}/mask").content
  ((_, _, body),) = drawn.stored
  assert sent in body
  refused = {"series": SERIES, "store": "true"}
  with open_service(archive=drawn.archive) as client:
    said = client.post("/jobs", params=refused)
    assert (said.status_code, "an archive stores DICOM" in said.text) == (422, True)


@pytest.mark.parametrize("url", ["ftp://a/b", "127.0.0.1:8042", "http://", "http://a/b?c=d"])
def test_what_is_no_address_of_an_archive_is_refused(url):
  with pytest.raises(UserError, match="write http://HOST:PORT/PATH"):
    read_archive(url)


def test_a_password_in_an_address_is_not_repeated():
  with pytest.raises(UserError, match="a name or a password") as refused:
    read_archive("http://me:secret@pacs/web")
  assert "secret" not in str(refused.value)
  assert read_archive("http://pacs/web/").url == "http://pacs/web"
  assert read_archive(None) is None


def test_uids_are_told_from_paths():
  assert is_uid("1.2.840.113619")
  assert not any(map(is_uid, ("", "1", "1..2", "1.2/3", "../1", "1." * 40 + "1", "1.2\n")))


@pytest.fixture
def orthanc(tmp_path):
  """An Orthanc with its DICOMweb plugin on this machine alone: Debian's orthanc-dicomweb."""
  program = shutil.which("Orthanc", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
  plugin = program and Path(program).parents[1] / "share/orthanc/plugins/libOrthancDicomWeb.so"
  if not plugin or not plugin.exists():
    pytest.skip("no Orthanc with its DICOMweb plugin (Debian: orthanc-dicomweb)")
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  config = {
    "StorageDirectory": str(tmp_path / "orthanc"),
    "IndexDirectory": str(tmp_path / "orthanc"),
    "DicomServerEnabled": False,
    "HttpPort": port,
    "RemoteAccessAllowed": False,
    "AuthenticationEnabled": False,
    "Plugins": [str(plugin)],
    "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
  }
  (tmp_path / "orthanc.json").write_text(json.dumps(config))
  with (tmp_path / "log").open("w") as log:
    running = subprocess.Popen([program, str(tmp_path / "orthanc.json")], stdout=log, stderr=log)
  url = f"http://127.0.0.1:{port}/dicom-web"
  try:
    for _ in range(600):
      try:
        urllib.request.urlopen(f"{url}/studies", timeout=5).close()
        break
      except (urllib.error.URLError, ConnectionError):
        assert running.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.1)
    yield Archive(url)
  finally:
    running.terminate()
    running.wait(60)


@pytest.mark.slow
def test_a_real_archive_gives_a_series_and_takes_its_segmentation(orthanc, tmp_path):
  pytest.importorskip("highdicom")
  files = sorted(write_source(tmp_path / "source", "shuffled").iterdir())
  for file in files:
    store_instance(orthanc, file.read_bytes())
  series = pydicom.dcmread(files[0]).SeriesInstanceUID
  with open_service(archive=orthanc) as client:
    asked = {"series": series, "output_format": "dicom-seg", "store": "true"}
    said = wait(client, client.post("/jobs", params=asked).headers["Location"])
    assert said["state"] == "done", said
  instances = f"{orthanc.url}/instances?Modality=SEG&includefield=0020000E"
  with urllib.request.urlopen(instances, timeout=60) as answer:
    (found,) = json.load(answer)
  fetch_series(orthanc, found["0020000E"]["Value"][0], tmp_path / "stored", 1 << 24)
  (stored,) = (tmp_path / "stored").iterdir()
  assert len(read_frame_points(stored, 1)) == said["classes"][0]["voxels"] > 0
  referenced = pydicom.dcmread(stored).ReferencedSeriesSequence[0]
  assert referenced.SeriesInstanceUID == series
