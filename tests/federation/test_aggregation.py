"""Replies become the next weights: in any order the same bits, and nothing bad gets in."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, RecordDict
from flwr.serverapp.strategy.fedtrimmedavg import trim_mean
from flwr.serverapp.strategy.multikrum import select_multikrum
from hypothesis import given
from hypothesis import strategies as st

from fedecg.config import FederationSettings, StudySettings, parse_settings
from fedecg.errors import FederationError
from fedecg.federation.aggregation import (
    BLOCK,
    ROBUST,
    aggregation_weight,
    average,
    check_update,
    combine,
    exploding,
    krum,
    median,
    norm,
    trimmed_mean,
    update_norm,
)


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


@pytest.mark.parametrize("name", sorted(ROBUST))
def test_a_robust_mean_of_seven_sites_is_not_moved_by_one_that_lies(name: str) -> None:
    honest = vectors(6, 50, 3)
    bound = max(float(np.abs(vector).max()) for vector in honest.values())
    liar = {**honest, "site-9": np.full(50, 1e6, np.float32)}
    settings = FederationSettings.model_validate({"algorithm": name})
    assert np.abs(combine(settings, liar, dict.fromkeys(liar, 1.0))).max() <= bound
    assert np.abs(combine(FederationSettings(), liar, dict.fromkeys(liar, 1.0))).max() > 1e5


@pytest.mark.parametrize("seed", range(5))
def test_krum_and_the_trimmed_mean_are_flowers(seed: int) -> None:
    updates = vectors(7, 30, seed)
    contents = [RecordDict({"w": ArrayRecord({"v": Array(updates[name])})}) for name in sorted(updates)]
    (chosen,) = select_multikrum(contents, num_malicious_nodes=2, num_nodes_to_select=1)
    theirs = chosen.array_records["w"]["v"].numpy()
    assert krum(updates, {}, 2).tobytes() == theirs.tobytes()
    stacked = np.stack([updates[name] for name in sorted(updates)]).astype(np.float64)
    assert trimmed_mean(updates, {}, 2) == pytest.approx(trim_mean(stacked, 2 / 7))


def whole_average(values: np.ndarray, shares: np.ndarray) -> np.ndarray:
    mean = np.zeros(values.shape[1])
    for value, share in zip(values, shares, strict=True):
        mean += value * share
    return mean.astype(np.float32)


def whole_krum(values: np.ndarray, hostile: int) -> np.ndarray:
    squares = np.stack([np.square(values - own).sum(axis=1) for own in values])
    nearest = np.sort(squares, axis=1)[:, 1 : len(values) - hostile - 1]
    return values[int(np.argmin(nearest.sum(axis=1)))].astype(np.float32)


@pytest.mark.parametrize("size", [2, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 77])
@pytest.mark.parametrize("sites", [5, 12])
def test_by_blocks_every_mean_has_the_bits_of_the_whole_vectors(size: int, sites: int) -> None:
    """The formulas that take all vectors at once, in float64, as they stood before there were blocks."""
    updates = vectors(sites, size, size + sites)
    weights = {name: float(3 * place + 1) for place, name in enumerate(updates)}
    values = np.stack([updates[name] for name in sorted(updates)]).astype(np.float64)
    shares = np.array([weights[name] / sum(weights.values()) for name in sorted(updates)])
    assert average(updates, weights).tobytes() == whole_average(values, shares).tobytes()
    assert median(updates, weights, 1).tobytes() == np.median(values, axis=0).astype(np.float32).tobytes()
    trimmed = np.sort(values, axis=0)[1 : sites - 1].mean(axis=0).astype(np.float32)
    assert trimmed_mean(updates, weights, 1).tobytes() == trimmed.tobytes()
    assert krum(updates, weights, 1).tobytes() == whole_krum(values, 1).tobytes()


class Slices:
    """An update of which nothing but slices can be had, and none longer than a block."""

    def __init__(self, vector: np.ndarray) -> None:
        self.vector = vector

    def __len__(self) -> int:
        return len(self.vector)

    def __getitem__(self, part: slice) -> np.ndarray:
        assert part.stop - part.start <= BLOCK
        return self.vector[part]


@pytest.mark.parametrize("name", ["fedavg", *sorted(ROBUST)])
def test_no_algorithm_asks_for_more_of_an_update_than_a_block(name: str) -> None:
    updates = vectors(6, BLOCK + 5, 4)
    settings = FederationSettings.model_validate({"algorithm": name})
    weights = dict.fromkeys(updates, 1.0)
    sliced = {site: Slices(vector) for site, vector in updates.items()}
    assert combine(settings, sliced, weights).tobytes() == combine(settings, updates, weights).tobytes()


def test_the_median_is_that_of_each_coordinate() -> None:
    updates = {
        name: np.array(pair, np.float32) for name, pair in (("a", (1, 9)), ("b", (2, 0)), ("c", (50, 4)))
    }
    assert median(updates, {}, 1).tolist() == [2.0, 4.0]


def test_too_few_sites_for_a_robust_mean_is_an_error_that_names_the_setting() -> None:
    two = vectors(2, 3, 0)
    with pytest.raises(
        FederationError, match=r"FECG-506 updates for trimmed-mean: found 2 site\(s\).*at least 3"
    ):
        trimmed_mean(two, {}, 1)
    with pytest.raises(
        FederationError, match=r"FECG-506 updates for krum.*at least 5 \(federation.hostile-sites\)"
    ):
        krum(two, {}, 1)


def test_an_update_that_explodes_is_found_by_the_round_and_by_its_own_past() -> None:
    usual = {"a": 1.0, "b": 2.0, "c": 1.5}
    assert exploding(usual, {}, 10.0) == []
    assert exploding({**usual, "d": 16.0}, {}, 10.0) == ["d"]
    assert exploding({"a": 30.0}, {"a": [1.0, 2.0, 1.5]}, 10.0) == ["a"]
    # Far beyond the others, but always so: another kind of site, not a fault; yet not without end.
    assert exploding({**usual, "d": 16.0}, {"d": [15.0, 17.0]}, 10.0) == []
    assert exploding({**usual, "d": 160.0}, {"d": [90.0, 100.0]}, 10.0) == ["d"]
    # Nothing to compare with but the weights: the first round of two sites.
    assert exploding({"a": 1.0, "b": 900.0}, {}, 10.0) == []
    assert exploding({"a": 1.0, "b": 1e9}, {}, 10.0) == ["b"]
    # Sites without steps do not move and are no measure.
    assert exploding({"a": 0.0, "b": 0.0, "c": 1.0, "d": 1.1}, {}, 10.0) == []


def test_the_norm_of_an_update_is_how_far_the_weights_moved() -> None:
    assert update_norm(np.array([4.0, 6.0], np.float32), np.array([1.0, 2.0], np.float32)) == 5.0
    sent, moved = vectors(2, 2 * BLOCK + 9, 8).values()
    assert norm(sent) == pytest.approx(float(np.linalg.norm(sent.astype(np.float64))))
    assert update_norm(moved, sent) == pytest.approx(float(np.linalg.norm(moved.astype(np.float64) - sent)))
