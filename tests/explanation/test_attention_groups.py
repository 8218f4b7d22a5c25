"""Groups of patients: who belongs to one, which may leave a site, what their sums are."""

from typing import Any

import numpy as np
import pytest

from fedecg.explanation import (
    FEWEST_PATIENTS,
    attend,
    beat_attention,
    group_sums,
    groups_of,
    may_leave,
)
from fedecg.explanation.groups import HIGH_RISK, LOW_RISK, nobodys_group
from fedecg.model import Network

NOBODY = np.zeros(60, dtype=np.bool_)


def first(n: int, of: int = 60) -> np.ndarray:
    return np.arange(of) < n


def test_risk_is_cut_at_the_outer_cuts_and_a_statement_counts_with_any_likelihood() -> None:
    log_hazard = np.array([-1.0, 0.0, 0.2, 0.5, 2.0])
    codes: list[dict[str, float]] = [
        {"LVH": 0.0},
        {"LVH": 100.0, "SR": 0.0},
        {},
        {"SR": 50.0},
        {"UNKNOWN": 1.0},
    ]
    groups = groups_of(log_hazard, codes, [0.0, 0.5], ["SR", "LVH", "AFIB"])
    assert {name: np.flatnonzero(members).tolist() for name, members in groups.items()} == {
        HIGH_RISK: [3, 4],
        LOW_RISK: [0],
        "SR": [1, 3],
        "LVH": [0, 1],
        "AFIB": [],
    }
    assert list(groups_of(log_hazard, codes, [], ["SR"])) == ["SR"]


@pytest.mark.parametrize(
    ("size", "leaves"), [(0, False), (FEWEST_PATIENTS - 1, False), (FEWEST_PATIENTS, True)]
)
def test_a_group_leaves_from_ten_patients_on(size: int, leaves: bool) -> None:
    assert ("LVH" in may_leave({"LVH": first(size)}, NOBODY)) is leaves


def test_no_difference_of_two_sums_that_leave_speaks_of_fewer_than_ten_patients() -> None:
    groups = {"SR": first(40), "NORM": first(31), "AFIB": first(30), "LVH": ~first(31), "ALL": first(60)}
    kept = may_leave(groups, first(50))
    assert list(kept) == ["SR", "AFIB", "LVH", "ALL"]  # NORM is SR without nine
    together = [first(50), *kept.values()]
    for number, one in enumerate(together):
        for other in together[:number]:
            assert np.sum(one != other) >= FEWEST_PATIENTS
    assert "SR" not in may_leave(groups, first(44))  # four less than those of the tests


def test_sums_are_those_of_the_members_alone(network: Network, ecgs: Any) -> None:
    members = np.arange(40) % 3 == 0
    found = group_sums(network, ecgs.signal_mv, 100.0, {"LVH": members})["LVH"]
    attention = attend(network, ecgs.signal_mv[members])
    beats = beat_attention(attention, ecgs.signal_mv[members], 100.0)
    whole = beats.beats > 0
    assert (found.attention.ecgs, found.beats.ecgs) == (14, int(whole.sum()))
    np.testing.assert_allclose(found.attention.leads, attention.leads.sum(axis=0), atol=1e-5)
    np.testing.assert_allclose(found.beats.signal_mv, beats.signal_mv[whole].sum(axis=0), atol=1e-5)
    np.testing.assert_allclose(found.beats.time, beats.time[whole].sum(axis=0), atol=1e-5)


def test_beats_of_too_few_stay_and_sites_add_up(network: Network, ecgs: Any) -> None:
    flat = ecgs.signal_mv.copy()
    flat[9:] = 0  # nine have beats
    everybody = {"SR": np.ones(40, dtype=np.bool_)}
    without = group_sums(network, flat, 100.0, everybody)["SR"]
    assert (without.attention.ecgs, without.beats.ecgs) == (40, 0)
    assert not without.beats.signal_mv.any()
    assert not without.beats.time.any()
    whole = group_sums(network, ecgs.signal_mv, 100.0, everybody)["SR"]
    total = whole + without + nobodys_group(256, 100.0)
    assert (total.attention.ecgs, total.beats.ecgs) == (80, whole.beats.ecgs)
    np.testing.assert_array_equal(total.beats.signal_mv, whole.beats.signal_mv)
