"""What people read before they agree to a study: what leaves, and what protects it, as this very study has it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from fedecg.config import StudySettings, parse_settings
from fedecg.federation.lock_words import how_protected, what_leaves


def told(**privacy: Any) -> str:
    tree = {"privacy": privacy, "evaluation": {"explain": False}, "survival": {"rounds": 4, "local-steps": 5}}
    study = parse_settings(StudySettings, tree | {"align": {"rounds": 2, "local-steps": 10}})
    return "\n".join([*what_leaves(study), *how_protected(study, {"city": "aa:bb"})])


def test_with_differential_privacy_of_patients_it_tells_of_noise_and_of_no_plain_sums() -> None:
    text = told(mode="sample", sums="noised", **{"sampling-rate": 0.25, "hazard-every": 3, "clip": 2.0})
    assert "in each of 40 steps a patient takes part with a chance of 0.25, with one record" in text
    assert "clipped to a norm of 2" in text
    assert "sums of hazards by time bin every 3 rounds" in text
    assert "epsilon and delta of its own site.toml" in text
    assert "no count, no loss" in text
    assert "Not covered: how long a round takes, codes of refusals" in text
    assert "calibration, curves and subgroups" not in text
    assert "counts and sums over patients" not in text


def test_without_it_it_tells_of_counts_and_sums() -> None:
    text = told(mode="none")
    assert "calibration, curves and subgroups from sums" in text
    assert "counts and sums over patients (privacy.sums = plain)" in text
    assert "Differential privacy" not in text
    assert "Small numbers" not in text


def test_under_masks_it_tells_that_no_threshold_holds_and_what_an_absence_gives_away() -> None:
    text = told(sums="masked")
    assert "thresholds of site.toml are for plain sums" in text
    assert "a total may be of few patients" in text
    assert "When a site misses an exchange, totals before and after tell its own numbers" in text
    assert "keys of the sites: city aa:bb" in text


def test_a_lock_without_such_a_study_loads_no_accountant() -> None:
    look = "import sys, fedecg.federation.lock; sys.exit('scipy' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", look], timeout=60).returncode == 0
