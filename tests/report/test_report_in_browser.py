"""The report in a real browser, where there is one: wide, on a phone, on paper; and that its data can be saved."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from fedecg.report.html import write_report

BROWSER = shutil.which("chromium")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on the PATH")

MOST_BYTES = 5_000_000
MOST_MS = 2000
# Reports back to the page around it: a window of 390 px cannot be had, a frame of it can.
PROBE = """<script>addEventListener("load", () => parent.postMessage({
  inner: innerWidth, scroll: document.documentElement.scrollWidth, images: document.images.length,
  broken: [...document.images].filter(image => !(image.complete && image.naturalWidth > 0)).length,
  wide: [...document.querySelectorAll("main *")].filter(element => !element.closest(".scroll")
    && element.getBoundingClientRect().right > innerWidth + 1).length
}, "*"));</script>"""
CLOCK = """<script>addEventListener("load", () => document.title = performance.now());</script>"""
FRAME = """<!doctype html><title>waiting</title><iframe src="probe.html" width="{width}" height="2000"
style="border:0"></iframe><script>addEventListener("message", event => document.title =
JSON.stringify(event.data));</script>"""


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser")


@pytest.fixture
def page(
    tmp_path: Path, summary: dict[str, Any], rounds: list[dict[str, Any]], assessment: dict[str, Any]
) -> Path:
    summary["sites"][0]["name"] = "a-hospital-with-a-name-as-long-as-settings-allow-0123456789-abcd"
    return write_report(summary, rounds, tmp_path / "report.html", assessment)


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


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out_and_every_picture_is_there(page: Path, profile: Path, width: int) -> None:
    assert page.stat().st_size < MOST_BYTES
    told = measured(page, profile, width)
    assert told["inner"] == width
    assert told["scroll"] <= width
    assert told["wide"] == 0
    assert told["images"] == 7
    assert told["broken"] == 0


def test_it_loads_fast(page: Path, profile: Path) -> None:
    done = browse(profile, "--dump-dom", with_script(page, CLOCK).as_uri())
    found = re.search(r"<title>([\d.]+)</title>", done.stdout)
    assert found is not None
    assert float(found[1]) < MOST_MS


def test_the_page_as_it_is_logs_no_error(page: Path, profile: Path) -> None:
    done = browse(profile, "--dump-dom", page.as_uri())
    assert "CONSOLE" not in done.stderr
    assert "was federation worth it" in done.stdout


def test_a_page_with_a_script_would_be_seen_to_log_one(page: Path, profile: Path) -> None:
    """The test above can fail: its policy refuses a script aloud."""
    page.write_text(page.read_text().replace("</body>", "<script>document.title='no'</script></body>"))
    done = browse(profile, "--dump-dom", page.as_uri())
    assert "CONSOLE" in done.stderr
    assert "Content Security Policy" in done.stderr
    assert "<title>no" not in done.stdout


def test_it_prints_to_a4(page: Path, profile: Path) -> None:
    out = page.with_suffix(".pdf")
    browse(profile, "--no-pdf-header-footer", f"--print-to-pdf={out}", page.as_uri())
    boxes = re.findall(rb"/MediaBox\s*\[\s*0 0 ([\d.]+) ([\d.]+)\s*\]", out.read_bytes())
    assert 4 <= len(boxes) <= 16
    for width, height in boxes:
        assert (float(width), float(height)) == pytest.approx((595, 842), abs=1.5)  # 210 x 297 mm
