"""A site with ECGs whose outcome is not known: what preflight finds, what is told when it joins, what may leave."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedecg.cohort import Cohort, write_cohort
from fedecg.config import SiteSettings, parse_settings
from fedecg.federation.tasks import JoinReply
from fedecg_client.folder import SiteFolder
from fedecg_client.preflight.check import Check
from fedecg_client.preflight.data import SiteDataChecks
from fedecg_client.preflight.share import shared_report
from fedecg_client.work import parts_of


def cohort(**parts: int) -> Cohort:
    """So many patients a part, every third with an event."""
    part = np.repeat(list(parts), list(parts.values()))
    rows = np.arange(len(part))
    unknown = part == "align"
    return Cohort(
        record=rows,
        patient=rows,
        part=part,
        event=(rows % 3 == 0) & ~unknown,
        follow_up_days=np.where(unknown, np.nan, 400.0 + rows),
        entry_days=np.zeros(len(rows)),
        died=np.zeros(len(rows), dtype=bool),
        age_years=np.full(len(rows), 60.0),
        female=np.zeros(len(rows)),
        codes=({"NORM": 100.0},) * len(rows),
    )


def preflight(folder: Path, phases: list[str], **parts: int) -> Check:
    write_cohort(cohort(**parts), folder / "cohort.csv")
    settings: dict[str, Any] = {
        "name": "site", "store": str(folder / "store"), "cohort": str(folder / "cohort.csv"),
        "policy": {"phases": phases},
    }  # fmt: skip
    site = SiteFolder(folder, parse_settings(SiteSettings, settings))
    return SiteDataChecks(site).check_cohort()


def test_preflight_counts_them_apart_and_looks_for_no_follow_up(tmp_path: Path) -> None:
    check = preflight(tmp_path, ["align", "survival"], train=60, validation=20, test=20, align=40)
    assert check.ok
    assert check.found.endswith("; align 40 patients without a known outcome")
    assert check.details["parts"]["align"]["follow-up-days"] == {}
    assert check.details["notes"] == []


def test_a_table_without_them_is_told_as_before(tmp_path: Path) -> None:
    check = preflight(tmp_path, ["align", "survival"], train=60, validation=20, test=20)
    assert check.ok
    assert "align" not in check.details["parts"]


@pytest.mark.parametrize(("phases", "code"), [(["align", "survival"], "FECG-665"), (["align"], None)])
def test_they_suffice_where_the_site_only_aligns(tmp_path: Path, phases: list[str], code: str | None) -> None:
    check = preflight(tmp_path, phases, validation=20, test=20, align=40)
    assert check.code == code


@pytest.mark.parametrize(("align", "told"), [(40, 40), (9, None)])
def test_their_number_leaves_only_where_it_is_large(tmp_path: Path, align: int, told: int | None) -> None:
    check = preflight(tmp_path, ["align"], train=60, validation=20, test=20, align=align)
    shared = shared_report("site", "now", [check])["cohort"]
    assert shared.get("align", {}).get("patients") == told
    assert ("all" in shared) == (told is None)


def test_a_site_joins_with_their_number() -> None:
    parts = parts_of(cohort(train=30, align=12))
    assert {name: (part.patients, part.events) for name, part in parts.items()} == {
        "train": (30, 10), "align": (12, 0)
    }  # fmt: skip
    sent = JoinReply(site="site", parts=parts, code_fingerprint="c", lock_sha256="l").model_dump_json()
    assert JoinReply.model_validate_json(sent).parts == parts
