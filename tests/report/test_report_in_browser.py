"""The report in a real browser, where there is one: wide, on a phone, on paper; and that its data can be saved."""

import re
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from framed_page import BROWSER, browse, measured, with_script
from numpy.typing import NDArray

from fedecg.config import ModelSettings, SignalSettings, StudySettings
from fedecg.explanation import explain, faithfulness_sums, group_sums
from fedecg.explanation.documents import sums_of_nobody
from fedecg.explanation.entry import explanation_entry
from fedecg.explanation.verdicts import read_verdicts, write_verdicts
from fedecg.model import BaselineFile, build_network, save_model
from fedecg.prediction import load
from fedecg.report.explain import write_explanation
from fedecg.report.html import write_report
from fedecg.signals import Recording

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on the PATH")

MOST_BYTES = 5_000_000
MOST_MS = 2000
CLOCK = """<script>addEventListener("load", () => document.title = performance.now());</script>"""


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser")


LONG_NAME = "a-hospital-with-a-name-as-long-as-settings-allow-0123456789-abcd"


def beats(records: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(1)
    time_s = np.arange(256) / 100
    wave = np.exp(-0.5 * (((time_s % 0.8) - 0.4) / 0.02) ** 2)
    signal_mv = rng.normal(0.8, 0.3, (records, 12, 1)) * wave + 0.02 * rng.standard_normal((records, 12, 256))
    return signal_mv.astype(np.float32)


@pytest.fixture(scope="module")
def explanation() -> dict[str, Any]:
    """Tests that were made, of stability, too; a site with too few; groups of risk and of three findings."""
    network, other = (build_network(ModelSettings(size="small"), 256, 8, seed=seed).eval() for seed in (1, 2))
    rng, signal_mv, here = np.random.default_rng(2), beats(40), np.arange(40)
    sums = faithfulness_sums(network, signal_mv, rng.exponential(900, 40), rng.random(40) < 0.5, 1, [other])
    members = {"high risk": here < 13, "low risk": here >= 26}
    members |= {code: here % 3 == number for number, code in enumerate(("NORM", "LVH", "AFIB"))}
    groups = group_sums(network, signal_mv, 100.0, members)
    sites = {LONG_NAME: sums, "rural": sums_of_nobody(network, 1, 2)}
    return explanation_entry("test", sites, False, {LONG_NAME: groups, "rural": {}})


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page is kept that the first test had written."""
    return tmp_path_factory.mktemp("drawn") / "report.html"


@pytest.fixture
def page(
    drawn: Path,
    tmp_path: Path,
    summary: dict[str, Any],
    rounds: list[dict[str, Any]],
    assessment: dict[str, Any],
    explanation: dict[str, Any],
) -> Path:
    """Written once, as its figures take seconds; each test has a copy, which it may change."""
    if not drawn.exists():
        summary["sites"][0]["name"] = LONG_NAME
        settings = StudySettings(name="north")  # for their table; the privacy section is always there
        write_report(summary, rounds, drawn, assessment, explanation, settings)
    return Path(shutil.copy(drawn, tmp_path))


@pytest.fixture
def explained(tmp_path: Path, explanation: dict[str, Any]) -> Path:
    """The page of `fedecg explain` for a model that was tested."""
    network = build_network(ModelSettings(size="small"), 256, 8, seed=1).eval()
    hazard = BaselineFile(edges_days=[0.0, 400.0], cumulative_hazard=[0.01, 0.05], variance=[1e-6, 2e-6])
    signals = SignalSettings(samples=256)
    save_model(tmp_path / "model", network, signals, "", hazard)
    write_verdicts(tmp_path / "model", explanation)
    model = load(tmp_path / "model")
    verdicts = read_verdicts(tmp_path / "model", model.saved.weights_sha256)
    shown = explain(model, Recording(np.pad(beats(1)[0], ((0, 0), (0, 8)), mode="wrap"), 100.0), verdicts)
    return write_explanation(shown, signals, tmp_path / "explained.html", model.disclaimer)


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out_and_every_picture_is_there(page: Path, profile: Path, width: int) -> None:
    assert page.stat().st_size < MOST_BYTES
    told = measured(page, profile, width)
    assert told["inner"] == width
    assert told["scroll"] <= width
    assert told["wide"] == 0
    assert told["images"] == 7 + 2 + 2 + 5  # two of the tests, two of bars, five mean beats
    assert told["broken"] == 0


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out_of_the_page_of_one_explained_ecg(
    explained: Path, profile: Path, width: int
) -> None:
    told = measured(explained, profile, width)
    assert told["inner"] == width
    assert told["scroll"] <= width
    assert told["wide"] == 0
    assert told["images"] == 5
    assert told["broken"] == 0


def test_the_page_of_one_explained_ecg_says_in_the_browser_what_the_tests_found(
    explained: Path, profile: Path, explanation: dict[str, Any]
) -> None:
    done = browse(profile, "--dump-dom", explained.as_uri())
    assert "CONSOLE" not in done.stderr
    shown = unescape(done.stdout)
    assert "do not read its maps as an explanation" in shown
    assert explanation["captions"]["time attention"] in shown
    out = explained.with_suffix(".pdf")
    browse(profile, "--no-pdf-header-footer", f"--print-to-pdf={out}", explained.as_uri())
    boxes = re.findall(rb"/MediaBox\s*\[\s*0 0 ([\d.]+) ([\d.]+)\s*\]", out.read_bytes())
    assert 2 <= len(boxes) <= 6
    for box in boxes:
        assert (float(box[0]), float(box[1])) == pytest.approx((595, 842), abs=1.5)


def test_settings_and_privacy_are_laid_out_on_the_page(page: Path, profile: Path) -> None:
    """What the tests above and below measure includes them."""
    seen = browse(profile, "--dump-dom", page.as_uri()).stdout
    text = " ".join(re.sub(r"<[^>]+>", " ", seen).split())
    for part in (
        "Privacy No differential privacy in this run",
        "Settings and code section settings study name north",
    ):
        assert part in text, part


def test_it_loads_fast(page: Path, profile: Path) -> None:
    done = browse(profile, "--dump-dom", with_script(page, CLOCK).as_uri())
    found = re.search(r"<title>([\d.]+)</title>", done.stdout)
    assert found is not None
    assert float(found[1]) < MOST_MS


def test_the_page_as_it_is_logs_no_error(page: Path, profile: Path) -> None:
    done = browse(profile, "--dump-dom", page.as_uri())
    assert "CONSOLE" not in done.stderr
    assert "was federation worth it" in done.stdout
    shown = unescape(done.stdout)
    assert "Not tested, too few patients (below 10): rural." in shown
    assert "mean over 13 patients of their median beats" in shown


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
    assert 4 <= len(boxes) <= 22
    for width, height in boxes:
        assert (float(width), float(height)) == pytest.approx((595, 842), abs=1.5)  # 210 x 297 mm
