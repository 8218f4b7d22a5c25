"""The HTML report: complete, safe with hostile text, alone in its file, the same every time."""

import base64
import html
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fedecg.report.html import report_html, write_report

Summary = dict[str, Any]
Rounds = list[dict[str, Any]]
HOSTILE = "</td><script>alert('x')</script>\"{{ 7 * 7 }}&amp;"


class _Tags(HTMLParser):
    """Counts elements and collects the addresses that a page refers to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.addresses: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _text(page: str) -> str:
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_the_report_has_all_its_parts(plain_page: str) -> None:
    text = _text(plain_page)
    for part in (
        "Does one ECG risk model trained by 7 sites together",
        "7 sites, 5,715 patients, 318 events; outcomes SIMULATED by a stated hazard.",
        "Federated training kept 95 % of pooled training's gain over chance and was 0.100 above the mean local",
        "federated 0.712 (0.690–0.734) 0.722 (0.700–0.744) 95 %",
        "harbour-general 2,140 128 1,926 214",
        "total 5,715 318 5,145 570",
        "survival 4 6 of 7 – rural-3 –",
        "4 alignment and 12 survival rounds; best survival round 9; 5.1 MB up and down per site",
        "settings, sha256 " + "9be1" * 16,
        "code fingerprint " + "3f0c" * 16,
        "time by stage ingest 21.5 s, align 48.2 s, survival 2 min 32 s",
        "not a medical device",
        "the true value is known to lie between the bounds",
    ):
        assert part in text, part


def test_the_page_is_well_formed_and_needs_nothing_else(plain_page: str) -> None:
    tags = _Tags(plain_page)
    assert tags.open == []
    assert tags.seen.count("img") == 3
    assert tags.seen.count("a") == 3
    kinds = ("data:image/svg+xml;base64,", "data:text/csv;charset=utf-8;base64,")
    assert all(address.startswith(kinds) for address in tags.addresses)
    assert not {"script", "link", "iframe", "object"} & set(tags.seen)
    style = plain_page[plain_page.index("<style>") : plain_page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    )
    assert f'<meta http-equiv="Content-Security-Policy" content="{policy}">' in plain_page


def test_the_figures_inside_are_whole_svg(plain_page: str) -> None:
    for address in _Tags(plain_page).addresses:
        content = base64.b64decode(address.partition(",")[2], validate=True)
        assert content.rstrip().endswith(b"</svg>") or address.startswith("data:text/csv")


def test_simulated_outcomes_are_labelled_on_every_page(plain_page: str) -> None:
    assert '<div class="label" role="note"><p>Outcomes are SIMULATED</p></div>' in plain_page
    printed = plain_page[plain_page.index("@media print") :]
    assert "display: table-header-group" in printed  # repeated by the browser on every sheet
    assert "<title>demo (SIMULATED outcomes)" in plain_page


def test_observed_outcomes_carry_no_label(summary: Summary, rounds: Rounds) -> None:
    summary["outcomes"] = "observed"
    page = report_html(summary, rounds)
    assert "simulated" not in page.lower()
    assert "outcomes observed" in page


def test_hostile_text_is_escaped_wherever_it_enters(summary: Summary, rounds: Rounds) -> None:
    summary["study"] = summary["seed"] = summary["code-fingerprint"] = HOSTILE
    summary["sites"][0].update({"name": HOSTILE, "label-mix": {HOSTILE: 3}, HOSTILE: 1})
    summary["folds"] = {HOSTILE: HOSTILE}
    summary["seconds"] = {HOSTILE: 1.0}
    rounds[4].update({"stage": HOSTILE, "missing": [HOSTILE], "rejected": [HOSTILE]})
    page = report_html(summary, rounds)
    tags = _Tags(page)
    assert "script" not in tags.seen
    assert tags.open == []
    assert "49" not in _text(page[page.index("<h1>") : page.index("</h1>")])
    assert HOSTILE in _text(page)


def test_null_columns_and_missing_parts_are_dashes(summary: Summary, rounds: Rounds) -> None:
    summary["columns"].update({"pooled": None, "true-hazard": None})
    summary.update({"best-round": None, "seconds": None, "test": None, "differences": None, "seed": None})
    text = _text(report_html(summary, rounds))
    assert "pooled – – –" in text
    assert "true hazard – – –" in text
    assert "best survival round –" in text
    assert "seed –" in text
    assert "Test part: – patients" in text


def test_an_almost_empty_summary_still_makes_a_page() -> None:
    page = report_html({}, [])
    assert _Tags(page).open == []
    assert "No federated model was scored" in page
    assert "SIMULATED" in page


def test_folds_and_too_few_events_are_stated(summary: Summary, rounds: Rounds) -> None:
    summary["folds"] = {"train": [1, 2, 3], "validation": [4], "test": 5, "stands-in": "two highest folds"}
    summary["federated-c-index"]["few-events"] = True
    text = _text(report_html(summary, rounds))
    assert "folds: train 1, 2, 3; validation 4; test 5; stands in two highest folds." in text
    assert "Too few events: with fewer than 30" in text


@pytest.mark.parametrize("name", ["report.html", "deep/er/report.html"])
def test_the_file_is_the_same_every_time(summary: Summary, rounds: Rounds, tmp_path: Path, name: str) -> None:
    path = write_report(summary, rounds, tmp_path / name)
    first = path.read_bytes()
    assert write_report(summary, rounds, str(path)).read_bytes() == first
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    assert first.decode() == report_html(summary, rounds)


def test_the_room_shows_the_names_that_others_use() -> None:
    import fedecg.report as room

    assert all(callable(getattr(room, name)) for name in room.__all__)
    assert {"print_summary", "save_figures", "write_report"} <= set(room.__all__)


def test_counts_from_the_data_set_stand_below_the_sites(summary: Summary, rounds: Rounds) -> None:
    summary["notes"] = {"records": 21799, "ages-missing": 89}
    assert "Data: records 21,799, ages missing 89." in _text(report_html(summary, rounds))


def test_refused_recordings_and_quality_are_counted_on_the_page(summary: Summary, rounds: Rounds) -> None:
    summary["refused-recordings"] = {"FECG-204": 3}
    summary["quality"] = {"flat": 7, "saturated": 0}
    page = report_html(summary, rounds)
    assert "recordings refused (FECG-204)" in page
    assert "quality flat" in page
    assert "saturated" not in page
