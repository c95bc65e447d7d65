"""Opens a page in headless Chromium from the command line: pictures, widths and console messages."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr"),
)
# The page in a frame of a given width, which a window cannot be; what it measures becomes the text of the document.
FRAME = """<!DOCTYPE html><body style="margin:0"><iframe id="f" width="{width}" height="{height}" style="border:0"
src="{page}"></iframe><script>
document.getElementById("f").onload = function () {{
  const page = this.contentDocument, root = page.documentElement;
  const wide = [...page.body.querySelectorAll("*")].filter(e => !e.closest(".scroll") && !e.closest("svg")
    && e.getBoundingClientRect().right > {width} + 1).map(e => e.tagName + "." + e.className);
  const found = {{scroll: root.scrollWidth, client: root.clientWidth, height: root.scrollHeight, wide: wide}};
  document.title = JSON.stringify(found);
}};
</script></body>"""


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    profile = folder / "profile"
    command = [str(BROWSER), *OPTIONS, f"--user-data-dir={profile}", *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    finally:
        shutil.rmtree(profile, ignore_errors=True)


def measure(page: Path, folder: Path, width: int) -> dict[str, Any]:
    """Measure a page shown at a width in pixels: widths, height, elements that stick out, and console messages."""
    outer = folder / f"frame-{width}.html"
    outer.write_text(FRAME.format(width=width, height=900, page=page.as_uri()))
    arguments = ("--allow-file-access-from-files", "--virtual-time-budget=10000", "--dump-dom", outer.as_uri())
    done = _run(folder, *arguments)
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title is not None, done.stderr
    found: dict[str, Any] = json.loads(title[1].replace("&gt;", ">").replace("&amp;", "&"))
    found["console"] = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return found


def picture(page: Path, target: Path, width: int, height: int) -> None:
    """Write a PNG of the top of the page, shown at a width in pixels."""
    outer = target.with_suffix(".html")
    outer.write_text(FRAME.format(width=width, height=height, page=page.as_uri()))
    _run(target.parent, f"--window-size={max(width, 500)},{height}", f"--screenshot={target}", outer.as_uri())
