"""Tables, and the checks of a preflight by name; plain functions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedecg.cohort import Cohort
from fedecg.config import StudySettings, parse_settings
from fedecg.federation.lock import StudyLock, settings_document
from fedecg.fingerprint import code_fingerprint
from fedecg.signals import Recording
from fedecg.text import load_bank
from fedecg_client.preflight import line_checks
from fedecg_client.preflight.check import Check

Captured = pytest.CaptureFixture[str]


MakeFolder = Callable[..., Path]


SECRET = "4711-SECRET"  # stands in a path, in a cell and in a name; must be found nowhere


RECORDS = {"train": 60, "validation": 24, "test": 30}


def recording(seed: int, size_mv: float = 1.0) -> Recording:
    """5 s of noise in the limb leads that obeys Einthoven's law."""
    rng = np.random.default_rng(seed)
    one, two = 0.3 * size_mv * rng.normal(size=(2, 500))
    limb = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    chest = 0.3 * size_mv * rng.normal(size=(6, 500))
    return Recording(np.vstack([*limb, chest]).astype(np.float32), 100.0)


def cohort(**columns: Any) -> Cohort:
    number = sum(RECORDS.values())
    rows = np.arange(number)
    whole: dict[str, Any] = {
        "record": rows,
        "patient": 770_077_000 + rows,
        "part": np.repeat(list(RECORDS), list(RECORDS.values())),
        "event": rows % 3 == 0,
        "follow_up_days": 300.0 + 31.0 * rows,
        "entry_days": np.zeros(number),
        "died": np.zeros(number, dtype=bool),
        "age_years": 40.0 + rows % 50,
        "female": (rows % 2).astype(float),
        "codes": ({"NORM": 100.0},) * number,
    }
    return Cohort(**{**whole, **columns})


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def line_of(folder: Path) -> dict[str, Check]:
    """The checks of the connection alone."""
    from fedecg_client.folder import open_site

    return by_name(line_checks(open_site(folder)))


def codes(checks: dict[str, Check]) -> dict[str, str | None]:
    return {name: check.code for name, check in checks.items() if check.ok is False}


def agreed(**sections: Any) -> StudyLock:
    study = parse_settings(StudySettings, {"name": "hf", **sections})
    code_fingerprint.cache_clear()
    return StudyLock(
        study="hf",
        settings=settings_document(study),
        bank_sha256=load_bank("minilm-demo").sha256,
        space_sha256=load_bank("minilm-demo").space_sha256,
        code_fingerprint=code_fingerprint(),
    )


def part(patients: int, events: int) -> dict[str, Any]:
    days = {"0.05": 11.25, "0.5": 1234.5, "0.9": 2345.6} if patients else {}
    return {"patients": patients, "events": events, "follow-up-days": days}
