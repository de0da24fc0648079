"""Who is answered, and how much is taken."""

import asyncio

import pytest

pytest.importorskip("starlette")
pytest.importorskip("httpx2")

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.serving.errors import RequestError
from attn_unet_jax.serving.gate import Gate
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
    assert client.get("/health", headers={"Origin": "http://[::1"}).status_code == 403
    assert client.get("/health", headers={"Origin": "null"}).status_code == 403
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


@pytest.mark.parametrize(
  "origin", ["*", "viewer.example", "https://viewer.example/", "https://A.b"]
)
def test_what_no_browser_sends_as_an_origin_is_refused(origin):
  with pytest.raises(UserError, match=r"--allow_origins=.*: write SCHEME://HOST"):
    ServiceOptions(origins=("https://a.example:8443", origin))


def test_who_has_no_token_cannot_send_much():
  with open_service(token=TOKEN) as client:
    for path in ("/auth/token", "/health"):
      refused = client.post(path, data={"password": "x" * (1 << 17)})
      assert refused.status_code == 413
      assert refused.json() == {"error": "larger than the 65536 bytes that are taken here"}
    many = client.post("/auth/token", data={f"a{n}": "" for n in range(100)})
    assert many.status_code == 400


def test_what_is_no_text_is_refused_in_text():
  with open_service() as client:
    params = r'{"result_extension": "\ud800\u001b\n"}'
    refused = client.post("/infer/a?image=x", data={"params": params})
    assert refused.status_code == 422
    assert refused.json()["error"].startswith(r"result_extension=\ud800\x1b : none of")


def ask(gate, receive):
  """The status of a POST through a gate."""

  async def send(message):
    sent.append(message)

  sent = []
  headers = [(b"host", b"127.0.0.1")]
  scope = {"type": "http", "method": "POST", "path": "/jobs", "headers": headers}

  async def answer():
    await gate(scope, receive, send)
    return sent[0]["status"] if sent else None

  return answer()


def test_a_body_that_stalls_is_given_up(monkeypatch):
  monkeypatch.setattr("attn_unet_jax.serving.gate._STALL_S", 0.01)

  async def read(scope, receive, send):
    await receive()

  with pytest.raises(RequestError, match=r"nothing has come for 0\.01 s") as stalled:
    asyncio.run(ask(Gate(read, ServiceOptions()), lambda: asyncio.sleep(60)))
  assert stalled.value.status == 408


def test_no_more_bodies_come_at_once_than_scans_may_wait():
  async def read(scope, receive, send):
    while (await receive())["more_body"]:
      pass

  async def try_places():
    gate, go = Gate(read, ServiceOptions(max_waiting=1)), asyncio.Event()

    async def receive_slowly():
      await go.wait()
      return {"type": "http.request", "body": b"", "more_body": False}

    first = asyncio.create_task(ask(gate, receive_slowly))
    await asyncio.sleep(0)
    second = await ask(gate, receive_slowly)
    go.set()
    return await first, second, await ask(gate, receive_slowly)

  assert asyncio.run(try_places()) == (None, 503, None)
