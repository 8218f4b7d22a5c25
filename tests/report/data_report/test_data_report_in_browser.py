"""The data report in a real browser, where there is one: on a phone, on a screen, on paper."""

import re
from pathlib import Path

import pytest
from data_reports import report
from framed_page import BROWSER, browse, measured


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium on the PATH")
@pytest.mark.parametrize("version", ["inside", "outside"])
def test_on_a_phone_no_table_of_counts_is_cut(looked: Path, tmp_path: Path, version: str) -> None:
    page = tmp_path / f"{version}.html"
    page.write_text((looked / f"{version}.html").read_text())
    quantiles = 1 if version == "inside" else 0  # six columns of numbers: that table is moved sideways
    assert measured(page, tmp_path / "profile", 390)["cut"] == quantiles


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium on the PATH")
@pytest.mark.parametrize("version", ["inside", "outside"])
def test_nothing_sticks_out_on_a_phone_a_screen_or_paper(
    oddities: Path, tmp_path: Path, version: str
) -> None:
    assert report(oddities, "--out", tmp_path, "--jobs", "1") == 0
    page, profile = tmp_path / f"{version}.html", tmp_path / "profile"
    for width in (390, 1280):
        told = measured(page, profile, width)
        assert (told["inner"], told["wide"], told["broken"]) == (width, 0, 0)
        assert told["scroll"] <= width
        assert told["images"] >= (6 if version == "inside" else 2)
    paper = tmp_path / "paper.pdf"
    browse(profile, "--no-pdf-header-footer", f"--print-to-pdf={paper}", page.as_uri())
    boxes = re.findall(rb"/MediaBox\s*\[\s*0 0 ([\d.]+) ([\d.]+)\s*\]", paper.read_bytes())
    assert 3 <= len(boxes) <= 14
    for box in boxes:
        assert (float(box[0]), float(box[1])) == pytest.approx((595, 842), abs=1.5)
