"""The two versions of the data report of a site: right numbers inside, nothing of anybody outside."""

import re
from pathlib import Path

import numpy as np
import pytest
from data_reports import document, people, report, rows, text_of
from sksurv.nonparametric import kaplan_meier_estimator


def test_inside_counts_everybody(looked: Path) -> None:
    inside, cohort = document(looked, "inside"), people()
    assert rows(inside, "sex") == {"female": 120, "male": 120}
    assert rows(inside, "parts") == {"train": 192, "test": 48}
    assert rows(inside, "parts", "events")["test"] == int(cohort.event[cohort.part == "test"].sum())
    ages = rows(inside, "age")
    assert (ages["missing"], ages["90 years and more"]) == (3, 3)
    assert list(rows(inside, "follow-up"))[:2] == ["below 1 year", "1 to below 2 years"]
    assert ages["60 to below 70 years"] == int(np.sum((cohort.age_years >= 60) & (cohort.age_years < 70)))
    assert rows(inside, "ends") == {
        "event": 80, "death before it": int(cohort.died.sum()), "censored": 160 - int(cohort.died.sum())
    }  # fmt: skip
    assert rows(inside, "codes") == {"NORM": 120, "LVH": 120, "SR": 119, "XRARE (not in the bank)": 1}
    assert rows(inside, "coverage") == {
        "a statement that the bank has": 240, "statements, and none that the bank has": 0, "no statement": 0
    }  # fmt: skip
    assert rows(inside, "languages") == {"German": 60, "English": 60, "Swedish": 60, "no text": 60}
    assert rows(inside, "rates") == {"100 Hz": 240}
    assert rows(inside, "devices") == {"AT-6": 237, "<script>alert(1)</script>": 3}


def test_survival_is_kaplan_meiers(looked: Path) -> None:
    cohort = people()
    times, survival = kaplan_meier_estimator(cohort.event, cohort.follow_up_days)
    for point in document(looked, "inside")["survival"]:
        days = point["years"] * 365.25
        assert point["survival"] == pytest.approx(
            survival[times <= days][-1] if np.any(times <= days) else 1.0
        )
        assert point["at-risk"] == int(np.sum(cohort.follow_up_days >= days))


def test_outside_has_no_small_number_and_nothing_that_names_anybody(looked: Path, site: Path) -> None:
    outside = document(looked, "outside")
    numbers = [
        cell
        for table in outside["tables"]
        for row in (*table["rows"], table["total"])
        for cell in row.values()
    ]
    counted = [row["patients"] for table in outside["tables"] for row in (*table["rows"], table["total"])]
    assert all(cell == 0 or cell >= 10 for cell in counted if isinstance(cell, int))
    assert all(cell % 5 == 0 for cell in numbers if isinstance(cell, int))
    assert "withheld" in numbers
    assert rows(outside, "age")["missing"] == rows(outside, "age")["90 years and more"] == "withheld"
    assert outside["thresholds"] == {"patients": 10, "events": 5}
    both = text_of(looked / "outside.html") + (looked / "outside.json").read_text()
    for secret in ("XRARE", "script", "records100", "_lr", "7004", str(site)):
        assert secret not in both
    assert not {"quantiles", "worst", "settings", "files-that-are-no-ecgs"} & set(outside)
    assert "data:image/svg+xml" in (looked / "outside.html").read_text()


def test_the_same_numbers_stand_in_page_and_document(looked: Path) -> None:
    for version in ("inside", "outside"):
        text = text_of(looked / f"{version}.html")
        for table in document(looked, version)["tables"]:
            for row in table["rows"][:5]:
                if row["ecgs"] != 0:
                    assert f"{row['label']} {row['ecgs']}" in text


def test_both_versions_state_how_they_differ(looked: Path) -> None:
    inside, outside = (document(looked, version)["differences"] for version in ("inside", "outside"))
    assert sorted(inside) == sorted(outside)
    assert any("names of refused files and of the worst ECGs, which are drawn" in line for line in inside)
    assert any("a number below 10 patients or 5 events is not shown" in line for line in inside)
    for version, lines in (("inside", inside), ("outside", outside)):
        for line in lines:
            assert line in text_of(looked / f"{version}.html")
    assert "it does not leave the site" in text_of(looked / "inside.html")
    assert "Read it before it leaves the site" in text_of(looked / "outside.html")


def test_pages_load_nothing_run_nothing_and_are_the_same_twice(
    looked: Path, site: Path, tmp_path: Path
) -> None:
    assert report(site, "--table", site / "devices.csv", "--out", tmp_path) == 0
    for name in ("inside.html", "outside.html", "inside.json", "outside.json"):
        assert (tmp_path / name).read_bytes() == (looked / name).read_bytes()
    page = (looked / "inside.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "default-src 'none'" in page
    assert set(re.findall(r'(?:src|href)="(.{5})', page)) == {"data:"}
