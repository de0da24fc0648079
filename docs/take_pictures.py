"""Takes the pictures of the README from the page of a run; `make pictures` runs it.

python docs/take_pictures.py runs/demo/report.html docs/images
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Error, Playwright, sync_playwright

_BROWSERS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


def main(page: Path, folder: Path) -> None:
  """Writes `report.png`: the viewer with the overlay of a gate, and the surfaces."""
  with sync_playwright() as running:
    browser = open_browser(running)
    opened = browser.new_page(viewport={"width": 1280, "height": 800})
    opened.goto(page.resolve().as_uri())
    opened.locator(".surfaces canvas[aria-label]").first.wait_for()
    overlays = opened.locator("input[name=map]")
    if overlays.count() > 1:
      overlays.nth(1).check()  # after `off`: the first gate of the finest level
    opened.wait_for_timeout(500)
    picture = opened.locator("#viewer").screenshot()
    browser.close()
  # Of 256 colours, for a third of the bytes.
  small = Image.open(io.BytesIO(picture)).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE)
  small.save(folder / "report.png", optimize=True)


def open_browser(running: Playwright) -> Browser:
  """Opens a browser of the system, or playwright's own; says in one line that there is none."""
  path = next(filter(None, map(shutil.which, _BROWSERS)), None)
  try:
    return running.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
  except Error as error:
    (reason, *_) = str(error).splitlines()
    sys.exit(f"error: {path or 'no browser'}: cannot be opened ({reason}); apt install chromium")


if __name__ == "__main__":
  main(Path(sys.argv[1]), Path(sys.argv[2]))
