"""Einthoven's and Goldberger's laws on every record of the test data with limb leads; those that break them, by why.

Four of the six limb leads are computed by the cardiograph from I and II, so that a reader that confuses leads, signs or
units of any of them breaks a law in every sample. What remains are the records themselves.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from test_read_every_file import ecg_files

from fedecg.errors import SignalError
from fedecg.signals import Recording, assess, read_median, read_recording
from fedecg.signals.quality import EINTHOVEN_MV

COUNTS_MV = 0.0151  # three counts of 5 µV: III and the augmented leads are rounded, and so are I and II
BEATS_MV = 0.05  # each lead's median is its own: medians do not quite add up
START = 20  # samples, 50 ms
HOLD, STARTING, SIMULATED, ELSEWHERE = (
    "hold",
    "broken in the first 50 ms",
    "broken throughout",
    "broken elsewhere",
)
EXPECTED = {
    "ptbxl": {HOLD: 393},
    "cinc2021": {HOLD: 10},
    "cinc2020": {HOLD: 28},
    # CODE-15 % was resampled to 400 Hz by those who published it, lead by lead: each rings by itself where it begins.
    "code15": {HOLD: 3, STARTING: 2},
    "code15_wfdb": {HOLD: 226, STARTING: 82, ELSEWHERE: 2},
    # A simulator filled the example of HL7: no heart, and no cardiograph that would compute a lead.
    "vendor": {HOLD: 4, SIMULATED: 1},
    "wfdb_odd": {},  # no 12-lead ECG among them: test_read_every_file has the code of each
}
SIMULATED_FILE = "hl7aecg_example.xml"
# Of the two: one changes its source after 1.8 s (the augmented leads jump by 9 mV, and settle), one spans 32 mV.
ELSEWHERE_FILES = {"919803.hea", "1111554.hea"}


def misses_mv(recording: Recording) -> NDArray[np.float64]:
    """(samples,) by how much the worst of the laws is missed; II = I + III, and aVR, aVL, aVF by halves."""
    one, two, three, avr, avl, avf = recording.signal_mv[:6].astype(np.float64)
    laws = [two - one - three, avr + (one + two) / 2, avl - (one - three) / 2, avf - (two + three) / 2]
    worst: NDArray[np.float64] = np.nanmax(np.abs([*laws, avl - one + two / 2, avf - two + one / 2]), axis=0)
    return worst


def kind_of(recording: Recording) -> str:
    """One of the kinds above."""
    where = np.flatnonzero(misses_mv(recording) > COUNTS_MV)
    if not where.size:
        return HOLD
    if where.max() < START:
        return STARTING
    return SIMULATED if where.size > 0.9 * recording.signal_mv.shape[1] else ELSEWHERE


def readable(folder: Path) -> dict[str, Recording]:
    """Every file of a folder that is read; which are refused, and why, is tested in test_read_every_file."""
    found = {}
    for path in ecg_files(folder):
        try:
            found[path.name] = read_recording(path)
        except SignalError:
            continue
    return found


@pytest.mark.parametrize("folder", EXPECTED)
def test_the_limb_leads_of_every_record_obey_or_are_known_not_to(data_root: Path, folder: str) -> None:
    kinds = {name: kind_of(recording) for name, recording in readable(data_root / folder).items()}
    assert Counter(kinds.values()) == EXPECTED[folder]
    assert {name for name, kind in kinds.items() if kind == SIMULATED} <= {SIMULATED_FILE}
    assert {name for name, kind in kinds.items() if kind == ELSEWHERE} <= ELSEWHERE_FILES


@pytest.mark.parametrize("folder", EXPECTED)
def test_what_breaks_a_law_by_more_than_a_tenth_of_a_millivolt_is_flagged(
    data_root: Path, folder: str
) -> None:
    for name, recording in readable(data_root / folder).items():
        flagged = bool(assess(recording).einthoven.any())
        worst = float(np.nanmax(misses_mv(recording)))
        assert flagged == (worst > EINTHOVEN_MV) or abs(worst - EINTHOVEN_MV) < 1e-4, name


@pytest.mark.parametrize(
    "name",
    [
        "ecgtoolkit/Example.dcm",
        "ecgtoolkit/Example.scp",
        "philips_sierra/ad4d3d80-d165_1-04_orig.xml",
        "philips_sierra/repbeats_example.xml",
    ],
)
def test_stored_beats_obey_but_for_what_a_median_of_each_lead_costs(data_root: Path, name: str) -> None:
    beat = read_median(data_root / "vendor" / name)
    known = np.isfinite(beat.signal_mv[:6]).all(axis=0)
    assert known.sum() > 200
    assert misses_mv(Recording(beat.signal_mv[:, known], beat.rate_hz, "median")).max() <= BEATS_MV
