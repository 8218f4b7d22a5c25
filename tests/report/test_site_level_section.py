"""What the report says of differential privacy of sites, and above all what that does not protect."""

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from fedecg.config import StudySettings, parse_settings
from fedecg.report.disclosure import STUDY
from fedecg.report.privacy_section import privacy_section, site_level_lines
from fedecg.report.table import print_summary

SETTINGS = parse_settings(StudySettings, {"privacy": {"mode": "client"}, "survival": {"baseline": "site"}})


def told(**changes: Any) -> dict[str, Any]:
    return {
        "mode": "client",
        "sums": "plain",
        "unit": "site",
        "sites": [],
        "epsilon": 3.61712,
        "delta": 1e-5,
        "noise": 8.0,
        "clip": 0.5,
        "releases": 40,
        "phases": {"align": 1.5, "survival": 2.75},
        "of-sites": 64,
        "forced": False,
    } | changes


def test_the_section_tells_epsilon_and_what_is_not_protected(summary: Any, rounds: Any) -> None:
    summary["privacy"] = told()
    section = privacy_section(summary, rounds, SETTINGS, evaluated=True, explained=False, thresholds=STUDY)
    text = " ".join(section.lines)
    assert section.lines[0].startswith(
        "Differential privacy of sites: epsilon 3.62 at delta 1e-05 for a site"
    )
    assert "over 40 noised means of updates of both stages (noise 8 x the clip of 0.5)" in text
    assert "Not counted as less where not all sites took part" in text
    assert "What this does not protect: single patients" in text
    assert "sums and counts, losses and the evaluation, to which no noise is added" in text
    assert "reads each site's clipped update before it does" in text
    assert "No differential privacy in this run" not in text
    assert "Forced" not in text


def test_its_table_tells_epsilon_of_each_stage_for_all_sites(summary: Any, rounds: Any) -> None:
    summary["privacy"] = told()
    section = privacy_section(summary, rounds, SETTINGS, evaluated=True, explained=False, thresholds=STUDY)
    assert section.grid.header == ("site", "align", "survival", "evaluate")
    assert {row[1:] for row in section.grid.rows} == {("all sites: 1.5", "all sites: 2.75", "none, no DP")}


def test_an_epsilon_that_bounds_hardly_anything_is_called_that() -> None:
    weak = " ".join(site_level_lines({"privacy": told(epsilon=48.8)}))
    assert "An epsilon of 48.8 bounds hardly anything" in weak
    assert "privacy.client-epsilon" in weak
    assert "hardly anything" not in " ".join(site_level_lines({"privacy": told()}))


def test_under_masks_the_coordinator_reads_the_sum_alone() -> None:
    text = " ".join(site_level_lines({"privacy": told(sums="masked")}))
    assert "reads the sum of the clipped updates before it does, though no single one" in text
    assert "it cannot check that a site has clipped" in text


def test_a_study_that_was_forced_says_so_and_what_that_means() -> None:
    last = site_level_lines({"privacy": told(forced=True) | {"of-sites": 3}})[-1]
    assert last.startswith(
        "Forced with 3 sites; fewer than 50 are too few for one to be hidden among the others"
    )
    assert last.endswith("Do not rely on it to protect a site or its patients.")


@pytest.mark.parametrize("mode", ["none", "sample"])
def test_other_studies_say_nothing_of_it(mode: str) -> None:
    assert site_level_lines({"privacy": {"mode": mode, "sums": "plain", "sites": []}}) == ()
    assert site_level_lines({}) == ()


def test_the_screen_tells_epsilon_too(summary: Any) -> None:
    summary["privacy"] = told(forced=True)
    console = Console(record=True, width=200, file=StringIO())
    print_summary(summary, console)
    text = " ".join(console.export_text().split())
    assert "epsilon 3.62 at delta 1e-05" in text
    assert "Forced with 64 sites" in text
