"""A page in a real browser: what sticks out of it in a window of some width, and its text and paper.

In:  a page, a folder for the browser's profile. Out: what a frame of that width says of the page, what was printed.
     Used by the tests of reports in a browser, which are skipped where there is none.
"""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

BROWSER = shutil.which("chromium")
# Reports back to the page around it: a window of 390 px cannot be had, a frame of it can.
PROBE = """<script>addEventListener("load", () => parent.postMessage({
  inner: innerWidth, scroll: document.documentElement.scrollWidth, images: document.images.length,
  broken: [...document.images].filter(image => !(image.complete && image.naturalWidth > 0)).length,
  cut: [...document.querySelectorAll(".scroll")].filter(table => table.scrollWidth > table.clientWidth).length,
  wide: [...document.querySelectorAll("main *")].filter(element => !element.closest(".scroll")
    && element.getBoundingClientRect().right > innerWidth + 1).length
}, "*"));</script>"""
FRAME = """<!doctype html><title>waiting</title><iframe src="probe.html" width="{width}" height="2000"
style="border:0"></iframe><script>addEventListener("message", event => document.title =
JSON.stringify(event.data));</script>"""


def browse(profile: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        *(str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"),
        *("--enable-logging=stderr", "--v=0"),
    ]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=True, timeout=90)


def with_script(page: Path, script: str) -> Path:
    """A copy of the page without its policy, which would not let the script run."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
    copy = page.parent / "probe.html"
    copy.write_text(text.replace("</body>", f"{script}</body>"))
    return copy


def measured(page: Path, profile: Path, width: int) -> dict[str, float]:
    """What a frame of that width says of the page."""
    with_script(page, PROBE)
    (page.parent / "frame.html").write_text(FRAME.format(width=width))
    waiting = (
        "--window-size=1400,2000",
        "--virtual-time-budget=5000",
    )  # else the frame's message may come too late
    done = browse(profile, *waiting, "--dump-dom", (page.parent / "frame.html").as_uri())
    found = re.search(r"<title>(.*?)</title>", done.stdout)
    assert found is not None
    assert found[1] != "waiting"
    answer: dict[str, float] = json.loads(unescape(found[1]))
    return answer
