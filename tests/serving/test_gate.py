"""Who is answered, and how much is taken."""

import pytest

pytest.importorskip("starlette")
pytest.importorskip("httpx2")

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.serving.options import ServiceOptions, read_secret
from tests.serving.services import open_service

TOKEN = "0123456789abcdef"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "hospital.example"])
def test_other_machines_need_a_token(host):
  with pytest.raises(UserError, match=f"--host={host}: other machines could send scans"):
    ServiceOptions(host=host)
  assert ServiceOptions(host=host, token=TOKEN).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_needs_none(host):
  assert ServiceOptions(host=host).token == ""


def test_a_token_that_can_be_guessed_or_read_by_nobody_is_refused(tmp_path):
  with pytest.raises(UserError, match="a token of 6 characters can be guessed"):
    ServiceOptions(token="secret")
  (tmp_path / "two").write_text("a\nb\n")
  with pytest.raises(UserError, match=r"--token_file=.*two: must have one line"):
    read_secret(tmp_path / "two", "--token_file")
  with pytest.raises(UserError, match=r"--token_file=.*none: cannot be read"):
    read_secret(tmp_path / "none", "--token_file")
  (tmp_path / "one").write_text(f"{TOKEN}\n")
  assert read_secret(tmp_path / "one", "--token_file") == TOKEN


def test_with_a_token_nobody_is_answered_without_it():
  with open_service(token=TOKEN) as client:
    for headers in ({}, {"Authorization": "Bearer 0123"}, {"Authorization": f"Basic {TOKEN}"}):
      refused = client.get("/info/", headers=headers)
      assert refused.status_code == 401
      assert refused.headers["www-authenticate"] == "Bearer"
    assert client.get("/auth/").json() == {"enabled": True}
    assert client.post("/auth/token", data={"password": "x"}).status_code == 401
    login = {"username": "me", "password": TOKEN, "grant_type": "password"}
    given = client.post("/auth/token", data=login).json()
    headers = {"Authorization": f"{given['token_type']} {given['access_token']}"}
    assert client.get("/auth/token/valid", headers=headers).status_code == 200
    assert client.get("/info/", headers=headers).status_code == 200
    # Whoever knows the token may use any name that leads here.
    assert client.get("/info/", headers={**headers, "Host": "hospital.example"}).status_code == 200


def test_without_a_token_other_names_and_pages_are_refused():
  with open_service(origins=("https://viewer.example",)) as client:
    assert client.get("/auth/").json() == {"enabled": False}
    assert client.get("/health", headers={"Host": "evil.example"}).status_code == 421
    assert client.get("/health", headers={"Host": "[::1]:8000"}).status_code == 200
    assert client.get("/health", headers={"Origin": "https://evil.example"}).status_code == 403
    assert client.get("/health", headers={"Origin": "http://127.0.0.1:8000"}).status_code == 200
    allowed = client.get("/health", headers={"Origin": "https://viewer.example"})
    assert allowed.headers["access-control-allow-origin"] == "https://viewer.example"
    asked = {"Origin": "https://viewer.example", "Access-Control-Request-Method": "POST"}
    assert client.options("/infer/a", headers=asked).status_code == 200


def test_a_body_that_is_too_large_is_refused_whatever_its_header_says():
  with open_service(max_upload_mib=1) as client:
    large = b"0" * (3 << 20)
    by_header = client.post("/jobs", files={"file": ("a.nii", large)})
    assert by_header.status_code == 413
    assert "larger than the 1 MiB" in by_header.json()["error"]
    start = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.nii"\r\n\r\n'
    chunked = client.post(
      "/jobs",
      content=iter((start, large, b"\r\n--x--\r\n")),
      headers={"Content-Type": "multipart/form-data; boundary=x"},
    )
    assert chunked.status_code == 413
