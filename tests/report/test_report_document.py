"""Settings, privacy and fingerprints in a report; report.json, which holds what the page shows and no more."""

import csv
import io
import json
import re
from typing import Any

import pytest

from fedecg.config import StudySettings
from fedecg.report.disclosure import STUDY
from fedecg.report.document import SCHEMA, VERSION, report_document, report_json
from fedecg.report.figure_data import comparison_csv
from fedecg.report.html import page_html, report_html, report_page
from fedecg.report.privacy_section import privacy_section
from fedecg.report.settings_table import settings_grid

Entry = dict[str, Any]
SETTINGS = StudySettings.model_validate(
    {
        "name": "north",
        "seed": 7,
        "data": {"path": "/home/smith/ptb-xl", "sites": {"city": 40}},
        "site-defaults": {"text": {"encoder": "/home/smith/bert", "sites": ["a", "b"], "mix": 1.0}},
        "survival": {"learning-rate": 0.0005, "rounds": 12},
        "evaluation": {"horizons-years": [1.0, 2.5]},
    }
)


def plain(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def test_settings_are_told_by_section_and_what_is_no_default_has_a_star() -> None:
    rows = dict(settings_grid(SETTINGS, simulation=True).rows)
    assert rows["study"] == "name north*; seed 7*"
    assert "learning-rate 0.0005*; weight-decay 0.01;" in rows["survival"]
    assert "horizons-years 1, 2.5*" in rows["evaluation"]
    assert rows["privacy"].startswith("mode none; sums plain; ")
    told = {key for text in rows.values() for key in re.findall(r"(?:^|; )([a-z0-9-]+) ", text)}
    every = {
        key
        for section in SETTINGS.model_dump(by_alias=True).values()
        if isinstance(section, dict)
        for key in section
    }
    assert every <= told


def test_of_a_path_only_its_last_part_is_shown() -> None:
    rows = dict(settings_grid(SETTINGS, simulation=True).rows)
    assert "path ptb-xl*" in rows["data"]
    assert "sites {city 40}*" in rows["data"]
    assert "text {encoder bert, " in rows["site-defaults"]
    assert "sites a, b}*" in rows["site-defaults"]
    assert "smith" not in str(rows)


def test_a_study_of_hospitals_has_no_rows_on_where_a_simulation_takes_its_data() -> None:
    assert {"data", "partition"} & set(dict(settings_grid(SETTINGS, simulation=False).rows)) == set()


def test_without_differential_privacy_nothing_was_spent_by_site_and_phase(
    summary: Entry, rounds: list[Entry]
) -> None:
    section = privacy_section(summary, rounds, SETTINGS, evaluated=True, explained=False, thresholds=STUDY)
    assert "No differential privacy in this run: nothing was spent" in section.lines[0]
    assert "in plain: whoever runs the coordinator can read every site's own sums" in section.lines[1]
    assert section.grid.header == ("site", "align", "survival", "evaluate")
    assert [row[0] for row in section.grid.rows] == [site["name"] for site in summary["sites"]]
    assert {cell for row in section.grid.rows for cell in row[1:]} == {"none, no DP"}


def test_a_ledgers_spends_stand_by_site_and_phase(summary: Entry, rounds: list[Entry]) -> None:
    section = privacy_section(
        summary,
        rounds,
        SETTINGS,
        evaluated=True,
        explained=True,
        thresholds=STUDY,
        spends={"st-anne": {"survival": 1.25}},
    )
    rows = {row[0]: row[1:] for row in section.grid.rows}
    assert rows["st-anne"] == ("0", "1.25", "0", "0")
    assert "nothing was spent" not in " ".join(section.lines)


def test_the_page_has_settings_privacy_and_both_fingerprints(
    summary: Entry, rounds: list[Entry], assessment: Entry
) -> None:
    summary["federation-code-fingerprint"] = "77aa" * 16
    text = plain(report_html(summary, rounds, assessment, settings=SETTINGS))
    assert "Privacy No differential privacy in this run" in text
    assert "survival rounds 12" in text
    assert "code fingerprint, sites and coordinator " + "77aa" * 16 in text
    assert "code fingerprint, with the simulations " + "3f0c" * 16 in text


def test_where_both_fingerprints_are_one_it_is_told_once(summary: Entry, rounds: list[Entry]) -> None:
    summary["federation-code-fingerprint"] = summary["code-fingerprint"]
    text = plain(report_html(summary, rounds))
    assert text.count("3f0c" * 16) == 1
    assert "with the simulations" not in text


@pytest.fixture
def document(summary: Entry, rounds: list[Entry], assessment: Entry) -> Entry:
    page = report_page(summary, rounds, assessment, settings=SETTINGS)
    told: Entry = json.loads(report_json(page))
    return told


def test_the_document_says_its_schema_and_holds_what_the_page_is_made_of(
    document: Entry, summary: Entry, rounds: list[Entry], assessment: Entry
) -> None:
    assert (document["schema"], document["version"]) == (SCHEMA, VERSION) == ("fedecg-report", 1)
    text = plain(report_html(summary, rounds, assessment, settings=SETTINGS))
    for told in (document["result"], *document["notes"], *document["privacy"]["lines"]):
        assert " ".join(told.replace("'", "&#39;").split()) in text
    tables = [document["comparison"], document["sites"], document["rounds"], document["settings"]]
    tables += [document["evaluation"]["horizons"], document["evaluation"]["sites"]]
    for table in tables:
        assert table["rows"]
        assert all(len(row) == len(table["header"]) for row in table["rows"])
    assert document["fingerprints"]["settings, sha256"] == "9be1" * 16


def test_every_figure_of_the_page_has_its_data_in_the_document(
    document: Entry, summary: Entry, rounds: list[Entry], assessment: Entry
) -> None:
    page = page_html(report_page(summary, rounds, assessment, settings=SETTINGS))
    names = set(re.findall(r'download="([a-z-]+)\.csv"', page))
    assert set(document["figures"]) == names >= {"comparison", "rounds", "sites", "survival", "subgroups"}
    header, *rows = csv.reader(io.StringIO(comparison_csv(summary)))
    assert document["figures"]["comparison"]["columns"] == header
    assert document["figures"]["comparison"]["rows"] == rows


def test_the_document_withholds_what_the_page_withholds(
    summary: Entry, rounds: list[Entry], assessment: Entry
) -> None:
    hospitals = summary | {"federated-c-index": {}}
    told = report_document(report_page(hospitals, rounds, assessment))
    (small,) = [row for row in told["sites"]["rows"] if row[0] == "clinic-hill"]
    assert small[1:3] == ["withheld", "fewer than 5"]
    (drawn,) = [row for row in told["figures"]["sites"]["rows"] if row[0] == "clinic-hill"]
    assert drawn[1:3] == ["withheld", "fewer than 5"]
    assert told["settings"] is None
