"""Whether attention is true, on the page: failures are said, with figures, thresholds and data."""

import base64
import html
import json
import re
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from fedecg.config import ModelSettings
from fedecg.explanation import FaithfulnessSums, faithfulness_sums, group_sums, shuffled
from fedecg.explanation.documents import sums_of_nobody
from fedecg.explanation.entry import explanation_entry
from fedecg.model import Network, build_network
from fedecg.report.faithfulness_report import faithfulness_section
from fedecg.report.html import report_html
from fedecg.signals import LEADS

Entry = dict[str, Any]


@cache
def ordered() -> Network:
    """A network with an order in its weights, which its shuffled copies have not."""
    network = shuffled(build_network(ModelSettings(size="small"), 256, 8, seed=3), seed=0)
    temporal = network.encoder.temporal.query_key_value
    across = network.encoder.cross_lead.attention.query_key_value
    with torch.no_grad():
        for weight, bias in ((temporal.weight, temporal.bias), (across.weight[None], across.bias[None])):
            width = weight.shape[2]
            bias[:, 0] = 6.0
            weight[:, width] = 0.0
            weight[:, width, 0] = 4.0
    return network.eval()


@cache
def sums_of(network: Network, ecgs: int = 24) -> FaithfulnessSums:
    rng = np.random.default_rng(7)
    signal_mv = rng.normal(0, 0.3, (ecgs, 12, 256)).cumsum(axis=2).astype(np.float32) / 4
    return faithfulness_sums(network, signal_mv, rng.exponential(900, ecgs), rng.random(ecgs) < 0.6, seed=1)


def entry_of(network: Network, ecgs: int = 24) -> Entry:
    """As it is read from explanation.json."""
    entry = explanation_entry("test", {"city": sums_of(network, ecgs)}, mixes_leads=False)
    read: Entry = json.loads(json.dumps(entry, allow_nan=False))
    return read


def results(entry: Entry) -> dict[tuple[str, str], str]:
    grid = faithfulness_section(entry, simulated=True).grid
    return {(row[0], row[1]): row[-1] for row in grid.rows}


def text_of(page: str) -> str:
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_a_network_whose_weights_are_shuffled_fails_the_randomisation_test_in_the_report(
    summary: Entry, rounds: list[Entry]
) -> None:
    learnt, broken = entry_of(ordered()), entry_of(shuffled(ordered(), seed=12))
    for about in ("time", "leads"):
        assert results(learnt)["weight randomisation", about] == "passed"
        assert results(broken)["weight randomisation", about] == "failed"
    page = text_of(report_html(summary, rounds, explanation=broken))
    assert "Is the attention true?" in page
    assert re.search(
        r"weight randomisation time p = 0\.\d+; rank correlation \S+ p ≤ 0.05; below 0.50 failed",
        page,
    )
    assert "Time attention is not an explanation of this model: it fails" in page
    assert re.search(
        r"Time attention is not an explanation here\. It fails: weight randomisation \(distance", page
    )
    assert "weight randomisation time p = 0.050;" in text_of(report_html(summary, rounds, explanation=learnt))


def test_every_test_stands_with_its_figure_its_threshold_and_its_result() -> None:
    entry = entry_of(ordered())
    grid = faithfulness_section(entry, simulated=True).grid
    assert grid.header == ("test", "attention", "figure", "threshold", "result")
    assert [row[0] for row in grid.rows] == [
        "weight randomisation",
        "weight randomisation",
        "deletion",
        "deletion, against gradient x input",
        "insertion",
        "insertion, against gradient x input",
        "lead occlusion",
        "stability over seeds",
        "stability over seeds",
    ]
    agreement = entry["occlusion"]["agreement"]
    assert grid.rows[-3][2:4] == (f"rank correlation {agreement:.2f}".replace("-", "−"), "at least 0.50")
    assert grid.rows[2][3] == "interval above 0"
    assert grid.rows[3][3:] == ("–", "comparison")
    for row, verdict in zip((grid.rows[n] for n in (0, 1, 2, 4, 6)), entry["verdicts"][:5], strict=True):
        assert row[-1] == ("passed" if verdict["passed"] else "failed")
    assert grid.rows[-1] == ("stability over seeds", "leads", "–", "at least 0.50", "not tested")


def test_figures_bring_captions_and_their_data() -> None:
    entry = entry_of(ordered())
    deletion, occlusion = faithfulness_section(entry, simulated=True).figures
    assert deletion.caption.endswith(f"or kept. {entry['captions']['time attention']}")
    assert occlusion.caption.endswith(
        f"comparable pairs; too few events, the intervals are narrower than they should be). "
        f"{entry['captions']['lead attention']}"
    )
    assert f"and to C ({entry['occlusion']['events']} events, " in occlusion.caption
    rows = deletion.data.splitlines()
    assert rows[0] == "order,share-of-time,change-when-hidden,change-when-kept"
    assert len(rows) == 1 + 3 * len(entry["deletion"]["shares"])
    table = [line.split(",") for line in occlusion.data.splitlines()]
    assert [row[0] for row in table[1:]] == list(LEADS)
    for column, name in ((4, "c-loss"), (5, "c-loss-se"), (6, "c-loss-low"), (7, "c-loss-high")):
        written = [float(row[column]) for row in table[1:]]
        np.testing.assert_allclose(written, entry["occlusion"][name], atol=1e-5)
    labels = [[text.get_text() for text in one.figure.texts] for one in (deletion, occlusion)]
    assert "SIMULATED outcomes" not in labels[0]  # no outcome is in these curves
    assert "SIMULATED outcomes" in labels[1]
    observed = faithfulness_section(entry, simulated=False).figures[1]
    assert "SIMULATED outcomes" not in [text.get_text() for text in observed.figure.texts]


@pytest.mark.parametrize("ecgs", [0, 5])
def test_few_ecgs_give_no_verdict_and_nobody_no_numbers(
    summary: Entry, rounds: list[Entry], ecgs: int
) -> None:
    entry = entry_of(ordered(), ecgs)
    assert set(results(entry).values()) == {"too few ECGs", "comparison", "not tested"}
    page = text_of(report_html(summary, rounds, explanation=entry))
    assert "Time attention: too few ECGs to say whether it explains anything." in page
    assert f"Tested on {ecgs} ECGs of the test part at {1 if ecgs else 0} site" in page
    assert ("Not tested, too few patients (below 10): city." in page) is (ecgs == 0)
    assert "nan" not in page


def test_a_stability_that_was_tested_has_its_row_and_one_that_was_not_says_so() -> None:
    entry = entry_of(ordered())
    said = faithfulness_section(entry, simulated=True).sentences
    assert all(line.endswith("Not tested: stability over seeds.") for line in said[1:])
    assert not any("passed" in line for line in said)
    verdict = {"test": "stability over seeds", "about": "lead attention", "passed": False, "sentence": "x"}
    tested = entry | {
        "stability": {"models": 3, "time": 0.7, "leads": 0.25},
        "verdicts": [*entry["verdicts"][:-2], verdict | {"tested": True}],
    }
    section = faithfulness_section(tested, simulated=True)
    assert section.grid.rows[-1] == (
        "stability over seeds",
        "leads",
        "rank correlation 0.25 (alignment shared)",
        "at least 0.50",
        "failed",
    )
    both = faithfulness_section(tested | {"seeds-of": "both stages"}, simulated=True)
    assert both.grid.rows[-1][2] == "rank correlation 0.25"
    assert "the alignment is shared" not in " ".join(section.sentences)
    assert any(note.startswith("Stability over seeds: the study trains again") for note in section.notes)


def test_the_notes_say_what_attention_missed_where_the_truth_is_known() -> None:
    notes = " ".join(faithfulness_section(entry_of(ordered()), simulated=True).notes)
    assert (
        "attention missed it and occlusion found it. Found in 298 records by time attention 36%, lead bars 28%"
        in notes
    )
    assert "not on this model" in notes


def test_a_report_of_a_run_without_tests_says_not_tested_under_its_heading(plain_page: str) -> None:
    page = text_of(plain_page)
    assert "Is the attention true? Not tested: this study did not ask its sites" in page


def grouped() -> Entry:
    """The entry with groups: high and low risk, two findings, of which one has no beats."""
    network = ordered()
    rng = np.random.default_rng(3)
    time_s = np.arange(256) / 100
    beat = np.exp(-0.5 * (((time_s % 0.8) - 0.4) / 0.02) ** 2)
    signal_mv = (rng.normal(0.8, 0.2, (40, 12, 1)) * beat + 0.02 * rng.standard_normal((40, 12, 256))).astype(
        np.float32
    )
    flat = np.where(np.arange(40)[:, None, None] < 12, 0.0, signal_mv).astype(np.float32)
    members = {
        "high risk": np.arange(40) < 16,
        "low risk": np.arange(40) >= 24,
        "LVH": np.arange(40) % 2 == 0,
    }
    city = group_sums(network, signal_mv, 100.0, members)
    coast = group_sums(network, flat, 100.0, {"high risk": np.arange(40) < 20, "<i>": np.arange(40) < 12})
    sums = sums_of(network)
    entry = explanation_entry("test", {"city": sums, "coast": sums}, False, {"city": city, "coast": coast})
    read: Entry = json.loads(json.dumps(entry, allow_nan=False))
    return read


def test_groups_are_added_up_over_sites_and_drawn_with_their_data(
    summary: Entry, rounds: list[Entry]
) -> None:
    entry = grouped()
    assert {name: (one["ecgs"], one["sites"], one["beats"]) for name, one in entry["groups"].items()} == {
        "high risk": (36, 2, 16),  # of coast's 20 only 8 have a beat: too few to leave
        "low risk": (16, 1, 16),
        "LVH": (20, 1, 20),
        "<i>": (12, 1, 0),
    }
    section = faithfulness_section(entry, simulated=True)
    names = [one.name for one in section.figures[section.tests :]]
    assert names == [
        "attention-by-risk",
        "attention-by-finding",
        "beat-high-risk",
        "beat-low-risk",
        "beat-lvh",
    ]
    risk, finding, beat, *_ = section.figures[section.tests :]
    assert "high risk 36 patients at 2 sites, low risk 16 patients at 1 site" in risk.caption
    assert risk.caption.endswith(entry["captions"]["lead attention"])
    assert beat.caption.endswith(entry["captions"]["time attention"])
    table = [line.split(",") for line in finding.data.splitlines()]
    assert {row[0] for row in table[1:]} == {"LVH", "<i>"}
    lvh = [float(row[4]) for row in table[1:] if row[0] == "LVH"]
    np.testing.assert_allclose(lvh, np.array(entry["groups"]["LVH"]["leads"]).mean(axis=0), atol=1e-5)
    rows = [line.split(",") for line in beat.data.splitlines()]
    assert rows[0] == ["lead", "seconds-from-r", "mean-mv", "attention-over-even"]
    assert len(rows) == 1 + 12 * 120
    page = report_html(summary, rounds, explanation=entry)
    assert "<i>" not in page
    assert "&lt;i&gt; 12 patients at 1 site" in page
    assert len(page) < 5_000_000


def test_an_explanation_with_hostile_text_is_escaped(summary: Entry, rounds: list[Entry]) -> None:
    hostile = "<script>alert(1)</script>"
    entry = entry_of(ordered()) | {
        "captions": {"time attention": hostile, "lead attention": hostile},
        "part": hostile,
    }
    page = report_html(summary, rounds, explanation=entry)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 3  # part, and a caption under each of the two figures


def test_the_pictures_are_the_same_every_time_and_hold_no_ecg(summary: Entry, rounds: list[Entry]) -> None:
    one, two = (report_html(summary, rounds, explanation=entry_of(ordered())) for _ in range(2))
    assert one == two
    link = re.search(r'download="lead-occlusion.csv" href="data:text/csv;charset=utf-8;base64,([^"]+)"', one)
    assert link is not None
    assert base64.b64decode(html.unescape(link[1])).decode("utf-8-sig").startswith("lead,attention-received,")


def test_sites_of_nobody_and_of_some_are_counted_together() -> None:
    sites = {"city": sums_of(ordered()), "rural": sums_of_nobody(ordered(), seed=1)}
    section = faithfulness_section(explanation_entry("validation", sites, mixes_leads=False), simulated=True)
    assert section.sentences[0].startswith("Tested on 24 ECGs of the validation part at 1 site.")
    assert section.sentences[0].endswith("Not tested, too few patients (below 10): rural.")
