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
from fedecg.explanation import FaithfulnessSums, faithfulness_sums, shuffled
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
    ]
    agreement = entry["occlusion"]["agreement"]
    assert grid.rows[-1][2:4] == (f"rank correlation {agreement:.2f}".replace("-", "−"), "at least 0.50")
    assert grid.rows[2][3] == "interval above 0"
    assert grid.rows[3][3:] == ("–", "comparison")
    for row, verdict in zip((grid.rows[n] for n in (0, 1, 2, 4, 6)), entry["verdicts"], strict=True):
        assert row[-1] == ("passed" if verdict["passed"] else "failed")


def test_figures_bring_captions_and_their_data() -> None:
    entry = entry_of(ordered())
    deletion, occlusion = faithfulness_section(entry, simulated=True).figures
    assert deletion.caption.endswith(f"or kept. {entry['captions']['time attention']}")
    assert occlusion.caption.endswith(f"to C. {entry['captions']['lead attention']}")
    rows = deletion.data.splitlines()
    assert rows[0] == "order,share-of-time,change-when-hidden,change-when-kept"
    assert len(rows) == 1 + 3 * len(entry["deletion"]["shares"])
    table = [line.split(",") for line in occlusion.data.splitlines()]
    assert [row[0] for row in table[1:]] == list(LEADS)
    np.testing.assert_allclose([float(row[4]) for row in table[1:]], entry["occlusion"]["c-loss"], atol=1e-5)
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
    assert set(results(entry).values()) == {"too few ECGs", "comparison"}
    page = text_of(report_html(summary, rounds, explanation=entry))
    assert "Time attention: too few ECGs to say whether it explains anything." in page
    assert f"Tested on {ecgs} ECGs of the test part at 1 site. Sites sent sums" in page
    assert "nan" not in page


def test_a_stability_that_was_tested_has_a_row_and_one_that_was_not_a_note() -> None:
    entry = entry_of(ordered())
    assert (
        faithfulness_section(entry, simulated=True).notes[-1].startswith("Stability over seeds: not tested")
    )
    verdict = {"test": "stability over seeds", "about": "lead attention", "passed": False, "sentence": "x"}
    tested = entry | {
        "stability": {"models": 3, "time": 0.7, "leads": 0.25},
        "verdicts": [*entry["verdicts"], verdict],
    }
    section = faithfulness_section(tested, simulated=True)
    assert section.grid.rows[-1] == (
        "stability over seeds",
        "leads",
        "rank correlation 0.25",
        "at least 0.50",
        "failed",
    )
    assert len(section.notes) == 3


def test_an_explanation_with_hostile_text_is_escaped(summary: Entry, rounds: list[Entry]) -> None:
    hostile = "<script>alert(1)</script>"
    entry = entry_of(ordered()) | {
        "captions": {"time attention": hostile, "lead attention": hostile},
        "part": hostile,
    }
    page = report_html(summary, rounds, explanation=entry)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 3


def test_the_pictures_are_the_same_every_time_and_hold_no_ecg(summary: Entry, rounds: list[Entry]) -> None:
    one, two = (report_html(summary, rounds, explanation=entry_of(ordered())) for _ in range(2))
    assert one == two
    link = re.search(r'download="lead-occlusion.csv" href="data:text/csv;charset=utf-8;base64,([^"]+)"', one)
    assert link is not None
    assert base64.b64decode(html.unescape(link[1])).decode("utf-8-sig").startswith("lead,attention-received,")


def test_sites_of_nobody_and_of_some_are_counted_together() -> None:
    sites = {"city": sums_of(ordered()), "rural": sums_of_nobody(ordered(), seed=1)}
    section = faithfulness_section(explanation_entry("validation", sites, mixes_leads=False), simulated=True)
    assert section.sentences[0].startswith("Tested on 24 ECGs of the validation part at 2 sites.")
