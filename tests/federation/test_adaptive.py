"""FedAdam and FedYogi at our server: number by number what Flower's own strategies make of the same updates."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdam, FedYogi
from flwr.supercore.task_identity import TaskIdentity

from fedecg.config import FederationSettings
from fedecg.federation.adaptive import Moments, adaptive_step
from fedecg.federation.aggregation import BLOCK, average
from fedecg.model import Piece

P, ROUNDS = BLOCK + 37, 4
STRATEGIES = {"fedadam": FedAdam, "fedyogi": FedYogi}


def settings_of(algorithm: str) -> FederationSettings:
    return FederationSettings.model_validate(
        {"algorithm": algorithm, "server-rate": 0.03, "beta-1": 0.8, "beta-2": 0.97, "tau": 0.002}
    )


def everything(size: int = P) -> tuple[Piece, ...]:
    return (Piece(0, size, 1.0),)


def moves(sites: int) -> list[dict[str, np.ndarray]]:
    """Round -> site -> how far it moves; some coordinates not at all."""
    rng = np.random.default_rng(7)
    return [
        {
            f"site-{i}": np.where(rng.random(P) < 0.1, 0, rng.normal(size=P) * 1e-2).astype(np.float32)
            for i in range(sites)
        }
        for _ in range(ROUNDS)
    ]


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower stamps messages with the task that runs."""
    for name, number in (("_task_id", 1), ("_run_id", 1), ("_node_id", 1)):
        monkeypatch.setattr(TaskIdentity, name, number)


def flowers_rounds(strategy, start: np.ndarray, patients: dict[str, int]) -> list[np.ndarray]:
    """Weights after each round of Flower's strategy, fed with the same updates in its own messages."""
    weights, after = start, []
    for number, moved in enumerate(moves(len(patients)), start=1):
        strategy.current_arrays = {"flat": weights}  # as its configure_train does before it sends
        replies = []
        for node, site in enumerate(sorted(moved), start=1):
            content = RecordDict(
                {
                    "arrays": ArrayRecord({"flat": Array(weights + moved[site])}),
                    "metrics": MetricRecord({"num-examples": patients[site]}),
                }
            )
            replies.append(Message(content, node, "train"))
        arrays, _ = strategy.aggregate_train(number, replies)
        # Flower's Adam goes on in float64; what travels here is float32, so both begin a round with the same numbers.
        weights = arrays["flat"].numpy().astype(np.float32)
        after.append(weights)
    return after


def both(algorithm: str, patients: dict[str, int]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Weights after each round: ours, Flower's."""
    start = np.random.default_rng(1).normal(size=P).astype(np.float32)
    strategy = STRATEGIES[algorithm](eta=0.03, beta_1=0.8, beta_2=0.97, tau=0.002)
    weights, moments, ours = start, Moments.none(P), []
    for number, moved in enumerate(moves(len(patients)), start=1):
        updates = {site: weights + moved[site] for site in moved}
        averaged = average(updates, {site: float(count) for site, count in patients.items()})
        weights, moments = adaptive_step(
            settings_of(algorithm), everything(), moments, weights, averaged, number
        )
        ours.append(weights)
    assert np.abs(weights - start).max() > 0.01
    return ours, flowers_rounds(strategy, start, patients)


@pytest.mark.usefixtures("identity")
@pytest.mark.parametrize("algorithm", sorted(STRATEGIES))
def test_where_the_average_is_exact_the_step_is_flowers_own_to_the_bit(algorithm: str) -> None:
    ours, theirs = both(algorithm, {"site-0": 10})
    for own, flowers in zip(ours, theirs, strict=True):
        assert own.dtype == flowers.dtype == np.float32
        assert own.tobytes() == flowers.tobytes()


@pytest.mark.usefixtures("identity")
@pytest.mark.parametrize("algorithm", sorted(STRATEGIES))
def test_with_several_sites_only_the_rounding_of_the_average_differs_from_flowers(algorithm: str) -> None:
    ours, theirs = both(algorithm, {"site-0": 10, "site-1": 25, "site-2": 7})
    for own, flowers in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(
            own, flowers, rtol=0, atol=1e-5
        )  # Flower adds up in float32, we in float64


def test_an_adaptive_step_by_hand() -> None:
    sent, averaged = np.array([1.0], np.float32), np.array([1.5], np.float32)
    after, moments = adaptive_step(settings_of("fedyogi"), everything(1), Moments.none(1), sent, averaged, 1)
    assert moments.first[0] == pytest.approx(0.2 * 0.5)
    assert moments.second[0] == pytest.approx(0.03 * 0.25)
    assert after[0] == pytest.approx(1 + 0.03 * 0.1 / (0.0075**0.5 + 0.002))


@pytest.mark.parametrize("algorithm", sorted(STRATEGIES))
def test_running_statistics_take_the_plain_mean(algorithm: str) -> None:
    pieces = (Piece(0, 2, 0.1), Piece(2, 4, 0.0, parameter=False))
    sent = np.array([1, 1, 0.01, 5], np.float32)
    averaged = np.array([2, 2, 0.005, 7], np.float32)
    after, moments = adaptive_step(settings_of(algorithm), pieces, Moments.none(4), sent, averaged, 1)
    assert after[2:].tolist() == averaged[2:].tolist()
    assert after[:2].tolist() != averaged[:2].tolist()
    assert moments.second[2:].tolist() == [0.0, 0.0]


def test_moments_of_a_round_are_new_arrays_so_that_a_repeated_round_can_begin_with_the_old() -> None:
    before = Moments.none(3)
    adaptive_step(
        settings_of("fedadam"), everything(3), before, np.zeros(3, np.float32), np.ones(3, np.float32), 1
    )
    assert before.first.tolist() == before.second.tolist() == [0.0, 0.0, 0.0]
