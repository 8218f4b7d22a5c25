"""Sites whose validation and test parts are too small to be told: no figure, no nought for one, and the true reason."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

from fedecg.cli import main
from fedecg.config import SiteDefaults, load_study
from fedecg.model import load_model
from fedecg.progress import Progress
from fedecg.signals import build_store, store_key
from fedecg_client.app import app as client_app
from fedecg_server.outcome import final_c_index
from fedecg_server.run_folder import RunFolder, read_json
from fedecg_server.study import run_study
from fedecg_simulations.grid import FIRST_NODE, InProcessGrid
from fedecg_simulations.partitions import virtual_sites
from fedecg_simulations.sites import write_sites
from fedecg_simulations.sources import load_dataset

CONFIG = Path(__file__).parents[2] / "configs" / "two-hospitals.toml"
# Train parts hold 5 and 9 events, which is enough; validation 1 and 2, test 4 and 2.
SMALL = [
    *("data.sites.city=200", "data.sites.coast=150", "data.test-patients=100", "signals.samples=256"),
    *("align.rounds=0", "survival.rounds=1", "survival.local-steps=1", "federation.threads=1"),
]
REASON = (
    "withheld by city, coast (below their thresholds of 10 patients or 5 events behind a figure, or what their "
    "site.toml says instead)"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study of two small sites with the thresholds of real ones."""
    folder = tmp_path_factory.mktemp("small")
    settings = load_study(CONFIG, SMALL)
    dataset = load_dataset(settings)
    dataset, parts = virtual_sites(dataset, settings.partition, settings.seed)
    key = store_key(settings.signals, dataset.source, "none")
    store = build_store(folder / "store", key, settings.signals, dataset.recordings, powerline="none")
    defaults = SiteDefaults(threshold_patients=10, threshold_events=5)
    write_sites(dataset.cohort, store.folder, parts, folder / "sites", defaults)
    sites = sorted((folder / "sites").iterdir())
    nodes = {number: {"site-folder": str(site)} for number, site in enumerate(sites, start=FIRST_NODE)}
    run_study(
        InProcessGrid(client_app, nodes), settings, RunFolder(folder / "run", resumable=True), Progress()
    )
    return folder / "run"


def words_of(text: str) -> str:
    """As a reader sees them."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


def test_who_starts_the_study_is_told_as_soon_as_the_sites_have_joined(run: Path) -> None:
    assert f"there will be no C-index: the test part is {REASON}" in read_json(run / "status.json")["notes"]


def test_the_study_says_at_its_end_why_it_has_no_c_index(run: Path) -> None:
    result, assessment = read_json(run / "result.json"), read_json(run / "assessment.json")
    assert final_c_index(result, assessment) == f"none: {REASON}"
    assert [part["events"] for part in result["evaluation"].values()] == [None, None]


def test_the_summary_holds_no_nought_for_what_is_withheld(run: Path) -> None:
    summary = read_json(run / "summary.json")
    assert summary["withheld-by"] == ["city", "coast"]
    assert set(summary["test"].values()) == {None}
    assert summary["assessment"] is summary["columns"]["federated"] is summary["federated-c-index"] is None


def test_the_report_gives_the_reason_and_neither_a_nought_nor_a_false_one(run: Path) -> None:
    assert main(["report", str(run), "--outcomes", "simulated"]) == 0
    page = words_of((run / "report.html").read_text())
    assert page.count(REASON) >= 3  # the result, the evaluation, the notes
    assert f"Test part: {REASON}." in page
    assert f"Not evaluated: {REASON}." in page
    assert "2 sites, patients withheld, events withheld;" in page
    assert not re.search(r"\b0 (patients|events)|20 patients followed|fewer than", page)
    for name in ("model_card.md", "tripod.md"):
        assert f"Not evaluated: {REASON}." in (run / "model" / name).read_text()


def test_the_model_ships_without_a_baseline_of_noughts_and_verify_says_why(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load_model(run / "model").baseline is None
    assert main(["verify", str(run / "model")]) == 0
    why = "it was withheld, below the site's thresholds"
    assert re.search(rf"baseline +none \(log hazards only\).*{why}", capsys.readouterr().out)
