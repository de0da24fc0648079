"""The page of a run in a real browser, opened from a file with the network cut."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from attn_unet_jax.drawing.page.comparison import ComparisonPage, Scatter, write_comparison
from attn_unet_jax.volumes.volume import Volume
from tests.drawing.test_page import EVIL, embed, make_answer, make_page
from tests.drawn_ct import drawn_ct, drawn_label

BROWSERS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


def find_browser():
  """Finds a browser that starts: the one that CHROMIUM names, or one of the system."""
  named = os.environ.get("CHROMIUM", "")
  found = filter(None, [named, *map(shutil.which, BROWSERS)])
  return next((Path(path) for path in found if starts(path)), None)


def starts(path):
  """Whether a browser says its version: one that Ubuntu only points to from a script does not."""
  try:
    said = subprocess.run([path, "--version"], timeout=20, capture_output=True, check=False)
  except (OSError, subprocess.TimeoutExpired):
    return False
  return said.returncode == 0


def test_a_browser_that_does_not_start_is_passed_over(tmp_path, monkeypatch):
  for name, status in ((BROWSERS[0], 1), (BROWSERS[1], 0)):
    (tmp_path / name).write_text(f"#!/bin/sh\nexit {status}\n")
    (tmp_path / name).chmod(0o755)
  monkeypatch.setenv("PATH", str(tmp_path))
  monkeypatch.setenv("CHROMIUM", str(tmp_path / "missing"))
  assert find_browser() == tmp_path / BROWSERS[1]


@pytest.fixture(scope="module")
def browser():
  playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
  path = find_browser()
  with playwright.sync_playwright() as running:
    if path is None and not Path(running.chromium.executable_path).exists():
      pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed (apt install chromium)")
    # As root, as in a container, Chromium has no sandbox.
    opened = running.chromium.launch(
      executable_path=path, args=["--no-sandbox", "--disable-gpu"], timeout=60_000
    )
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
  organ = drawn_label()
  maps = {
    "attention level2/0": Volume(organ.array.astype(np.float32), organ.affine),
    "uncertainty": Volume(np.abs(drawn_ct().array / 4000).astype(np.float32), organ.affine),
  }
  means = {"organ": 0.75, "shell": 0.5, "elsewhere": 0.25}
  text = make_page(
    shown=[embed(EVIL, maps=maps, about_maps=dict.fromkeys(maps, EVIL)), embed("c", "best")],
    gates={"level2/0": {place: (value, 0.125) for place, value in means.items()}},
    gate_cases={EVIL: {"level2/0": means}},
    gate_epochs=[(1, "level2/0", means)],
  )
  path = tmp_path_factory.mktemp("page") / "report.html"
  path.write_text(text, encoding="utf-8")
  return path


@pytest.fixture
def page(browser, report):
  """The page in a window of 1280 x 800, and at the end no error in its console."""
  context = browser.new_context(viewport={"width": 1280, "height": 800}, offline=True)
  opened, said = context.new_page(), []
  opened.on("console", lambda message: said.append(message.text))
  opened.on("pageerror", lambda error: said.append(str(error)))
  opened.on("dialog", lambda dialog: (said.append("a dialog"), dialog.dismiss()))
  opened.goto(report.as_uri())
  # A canvas says what it shows once the volumes are decoded.
  for part in (".planes", ".surfaces"):
    opened.locator(f"{part} canvas[aria-label]").first.wait_for(timeout=20_000)
  yield opened
  context.close()
  assert said == []


def test_the_page_of_a_comparison_draws_its_cases(browser, tmp_path):
  pictures = [embed(case, "", one_slice=True) for case in (EVIL, f"{EVIL} (b)")]
  scatter = Scatter("dsc", "a", EVIL, [(EVIL, 0.5, 0.75), ("c", 0.25, 0.5)], "p 0.5")
  made = ComparisonPage(
    title=EVIL,
    lead="",
    head=["run"],
    rows=[["a"], [EVIL]],
    metrics=["dsc"],
    differences=[[EVIL, "1", "2"]],
    notes=[],
    classes=["pancreas"],
    scatters=[scatter],
    runs=["a", "b"],
    pictures=[(EVIL, pictures)],
  )
  (tmp_path / "two.html").write_text(write_comparison(made), encoding="utf-8")
  opened = browser.new_page(viewport={"width": 390, "height": 800})
  said = []
  opened.on("console", lambda message: said.append(message.text))
  opened.on("pageerror", lambda error: said.append(str(error)))
  opened.goto((tmp_path / "two.html").as_uri())
  assert opened.locator("#scatters circle").count() == 2
  opened.locator("#thumbs canvas").nth(1).wait_for()  # pictures are unpacked one after the other
  assert opened.locator("#thumbs canvas").count() == 2
  assert opened.locator("#differences th").last.inner_text() == EVIL
  assert "overlap of prediction and truth" in opened.locator("#table").inner_text()
  assert "truth (solid)" in opened.locator("#keys").inner_text()
  opened.locator("#scatters a").first.focus()
  assert opened.locator("#scatters .said").inner_text() == f"{EVIL}: 0.5 and 0.75"
  assert opened.evaluate("document.documentElement.scrollWidth") <= 390
  assert said == []


def test_the_page_of_an_answer_shows_its_mask_alone(browser, tmp_path):
  (tmp_path / "answer.html").write_text(make_answer(), encoding="utf-8")
  opened = browser.new_page(viewport={"width": 390, "height": 800})
  said = []
  opened.on("console", lambda message: said.append(message.text))
  opened.on("pageerror", lambda error: said.append(str(error)))
  opened.goto((tmp_path / "answer.html").as_uri())
  for part in (".planes", ".surfaces"):
    opened.locator(f"{part} canvas[aria-label]").first.wait_for(timeout=20_000)
  assert opened.locator(".surfaces canvas").count() == 1
  assert not opened.locator("#case-choice").is_visible()
  before = look(opened, ".planes")
  opened.get_by_label("prediction", exact=True).uncheck()
  opened.wait_for_timeout(200)
  assert look(opened, ".planes") != before
  assert "truth" not in opened.locator("main").inner_text()
  assert [key.inner_text() for key in opened.locator("#viewer .key").all()] == [EVIL, *"bcdefg"]
  assert opened.evaluate("document.documentElement.scrollWidth") <= 390
  assert said == []


def look(page, selector):
  """The picture of the first canvas of a part."""
  return page.evaluate(f"document.querySelector('{selector} canvas').toDataURL()")


def change_and_look(page, change, selector=".planes"):
  before = look(page, selector)
  change()
  # The page forbids `eval`, by which playwright would wait for an expression.
  end = time.monotonic() + 20
  while look(page, selector) == before:
    assert time.monotonic() < end, "the picture stays as it was"
    page.wait_for_timeout(20)


def test_every_control_changes_the_picture(page):
  change_and_look(page, lambda: page.get_by_role("slider", name="axial slice").press("ArrowRight"))
  change_and_look(page, lambda: page.get_by_label("prediction", exact=True).uncheck())
  change_and_look(page, lambda: page.get_by_label("wide").check())
  change_and_look(page, lambda: page.get_by_label("attention level2/0").check())
  change_and_look(page, lambda: page.get_by_label("uncertainty").check())
  change_and_look(
    page, lambda: page.locator(".planes canvas").nth(1).click(position={"x": 9, "y": 9})
  )
  change_and_look(page, lambda: page.locator("#case-choice").select_option("1"))


def test_the_surfaces_turn_by_keys_and_by_the_pointer(page):
  surface = page.locator(".surfaces canvas").first
  change_and_look(page, lambda: surface.press("ArrowLeft"), ".surfaces")
  box = surface.bounding_box()

  def drag():
    page.mouse.move(box["x"] + 90, box["y"] + 90)
    page.mouse.down()
    page.mouse.move(box["x"] + 150, box["y"] + 120)
    page.mouse.up()

  surface.scroll_into_view_if_needed()
  box = surface.bounding_box()
  change_and_look(page, drag, ".surfaces")
  # Something is drawn, in the middle and not everywhere.
  share = page.evaluate(
    "(() => { const one = document.querySelector('.surfaces canvas');"
    " const { data } = one.getContext('2d').getImageData(0, 0, one.width, one.height);"
    " return data.filter((value, i) => i % 4 === 3 && value).length / (data.length / 4); })()"
  )
  assert 0.05 < share < 0.9


def test_text_of_a_run_is_shown_as_text(page):
  assert page.locator("h1").inner_text() == EVIL
  assert EVIL in page.locator("#case-choice option").first.inner_text()
  page.get_by_label("attention level2/0").check()
  assert EVIL in page.locator(".controls", has=page.locator(".ramp")).inner_text()
  assert page.locator("b").count() == 0


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_reaches_beyond_the_window_and_colours_follow_the_scheme(page, width, scheme):
  page.set_viewport_size({"width": width, "height": 800})
  page.emulate_media(color_scheme=scheme)
  reach = page.evaluate("document.documentElement.scrollWidth")
  assert reach <= width
  colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
  (red, *_) = map(int, colour[colour.index("(") + 1 : -1].split(","))
  assert (red > 127) == (scheme == "light")
