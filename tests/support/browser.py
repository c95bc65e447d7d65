"""Opens a page in headless Chromium from the command line: pictures, widths and console messages."""

from __future__ import annotations

import html
import importlib.util
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
AXE = importlib.util.find_spec("axe_playwright_python")  # installed for the script that it carries, without Playwright
# The page in a frame of a given width, which a window cannot be; what it measures becomes the title of the document.
# Folded, then with all that is folded opened: boxes that stick out, and boxes whose content is wider than they are.
FRAME = """<!DOCTYPE html><body style="margin:0"><iframe id="f" width="{width}" height="{height}" style="border:0"
src="{page}"></iframe><script>
document.getElementById("f").onload = async function () {{
  const view = this.contentWindow, page = this.contentDocument, root = page.documentElement;
  const named = e => e.tagName + "." + e.className + " " + (e.getAttribute("aria-label") || e.textContent).slice(0, 60);
  const measured = () => ({{
    scroll: root.scrollWidth, client: root.clientWidth, height: root.scrollHeight,
    wide: [...page.body.querySelectorAll("*")].filter(e => !e.closest(".scroll, nav, svg, .skip")
      && e.getBoundingClientRect().right > {width} + 1).map(named),
    scrolled: [...page.querySelectorAll(".scroll")].filter(e => e.scrollWidth > e.clientWidth + 1).map(named),
  }});
  const found = {{folded: measured(), axe: {{}}}};
  const first = page.querySelector("header");
  found.first = first ? first.getBoundingClientRect().bottom : null;
  page.querySelectorAll("main > section:not(#records) details:not([hidden])").forEach(box => {{ box.open = true; }});
  found.opened = measured();
  if ("{axe}") {{
    const script = page.createElement("script");
    await new Promise(done => page.head.append(Object.assign(script, {{src: "{axe}", onload: done}})));
    for (const theme of ["light", "dark"]) {{
      root.dataset.theme = theme;
      const result = await view.axe.run(page, {{resultTypes: ["violations"]}});
      found.axe[theme] = result.violations.map(v => v.id + ": " + v.nodes.slice(0, 3).map(n => n.html).join(" | "));
    }}
  }}
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


def measure(page: Path, folder: Path, width: int, with_axe: bool = False) -> dict[str, Any]:
    """Measure a page shown at a width in pixels, folded and opened; findings of axe-core in both themes; console."""
    outer = folder / f"frame-{width}.html"
    axe = (Path(str(AXE.submodule_search_locations[0])) / "axe.min.js").as_uri() if AXE and with_axe else ""
    outer.write_text(FRAME.format(width=width, height=800, page=page.as_uri(), axe=axe))
    arguments = ("--allow-file-access-from-files", "--virtual-time-budget=100000", "--dump-dom", outer.as_uri())
    done = _run(folder, *arguments)
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title is not None, done.stderr
    found: dict[str, Any] = json.loads(html.unescape(title[1]))
    found["console"] = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return found


def picture(page: Path, target: Path, width: int, height: int, theme: str = "light") -> None:
    """Write a PNG of the top of the page, shown at a width in pixels in a theme ("light", "dark")."""
    themed = target.with_suffix(".html")
    themed.write_text(page.read_text().replace("<html ", f'<html data-theme="{theme}" ', 1))
    _run(target.parent, f"--window-size={width},{height}", f"--screenshot={target}", themed.as_uri())
