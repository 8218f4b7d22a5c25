"""Replies become the next weights: in any order the same bits, and nothing bad gets in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedecg.config import StudySettings, parse_settings
from fedecg.errors import FederationError
from fedecg.federation.aggregation import aggregation_weight, average, check_update


def vectors(sites: int, size: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {f"site-{i}": rng.normal(size=size).astype(np.float32) for i in range(sites)}


def test_the_average_is_weighted_by_hand() -> None:
    updates = {"a": np.array([1.0, 0.0], np.float32), "b": np.array([4.0, 8.0], np.float32)}
    assert average(updates, {"a": 2.0, "b": 1.0}).tolist() == [2.0, np.float32(8 / 3)]


@given(st.permutations(range(6)), st.integers(0, 100))
def test_the_order_of_arrival_does_not_change_a_bit(order: list[int], seed: int) -> None:
    updates = vectors(6, 17, seed)
    weights = {name: float(i + 1) for i, name in enumerate(updates)}
    arrived = {f"site-{i}": updates[f"site-{i}"] for i in order}
    assert average(arrived, weights).tobytes() == average(updates, weights).tobytes()


def test_splitting_a_site_with_equal_updates_changes_nothing() -> None:
    whole = {"a": np.array([1.0], np.float32), "b": np.array([2.0], np.float32)}
    split = {"a": whole["a"], "b1": whole["b"], "b2": whole["b"]}
    assert average(whole, {"a": 1, "b": 4}) == pytest.approx(average(split, {"a": 1, "b1": 1, "b2": 3}))


def test_a_site_without_weight_does_not_count() -> None:
    updates = {"a": np.array([1.0], np.float32), "b": np.array([9.0], np.float32)}
    assert average(updates, {"a": 3.0, "b": 0.0}).tolist() == [1.0]


def test_no_weight_at_all_is_an_error_that_names_the_remedy() -> None:
    with pytest.raises(FederationError, match=r"FECG-506.*1 site\(s\).*weight = \"patients\""):
        average({"a": np.zeros(1, np.float32)}, {"a": 0.0})


def test_a_missing_short_or_non_finite_update_is_refused() -> None:
    with pytest.raises(FederationError, match="FECG-504.*none.*3 numbers"):
        check_update(None, 3)
    with pytest.raises(FederationError, match="FECG-504.*2 numbers.*3 numbers"):
        check_update(np.zeros(2, np.float32), 3)
    with pytest.raises(FederationError, match="FECG-505.*2 of 3 numbers"):
        check_update(np.array([np.nan, 1, np.inf], np.float32), 3)


@pytest.mark.parametrize(
    ("stage", "loss", "weight", "expected"),
    [
        ("align", "cox-batch", "events", 100.0),
        ("survival", "cox-pooled", "auto", 100.0),
        ("survival", "cox-batch", "auto", 7.0),
        ("survival", "cox-site", "auto", 7.0),
        ("survival", "cox-pooled", "events", 7.0),
        ("survival", "cox-batch", "patients", 100.0),
    ],
)
def test_sum_losses_weigh_patients_and_partial_likelihoods_events(
    stage: str, loss: str, weight: str, expected: float
) -> None:
    tree = {"survival": {"loss": loss}, "federation": {"weight": weight}}
    assert aggregation_weight(parse_settings(StudySettings, tree), stage, 100, 7) == expected
