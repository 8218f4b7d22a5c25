"""How replies become the next weights: pure functions on vectors, in the order of site names.

In:  one flat float32 vector a site and its aggregation weight. Out: the next global vector (float32).
Called by the server's strategy; knows neither Flower nor files, so that it can be proven.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fedecg.config import FederationSettings, StudySettings
from fedecg.errors import FederationError

__all__ = ["ROBUST", "aggregation_weight", "average", "check_update", "combine", "exploding", "update_norm"]

Vector = NDArray[np.float32]


def check_update(update: Vector | None, size: int) -> Vector:
    """Accept a site's vector only if it has the right length and is finite.

    Raises:
        FederationError: FECG-504 wrong length or missing; FECG-505 non-finite values (their count).
    """
    if update is None or update.shape != (size,):
        found = "none" if update is None else f"{update.size} numbers"
        raise FederationError("FECG-504", "update of a site", found=found, expected=f"{size} numbers")
    bad = int(update.size - np.count_nonzero(np.isfinite(update)))
    if bad:
        raise FederationError(
            "FECG-505",
            "update of a site",
            found=f"{bad} of {size} numbers that are not finite",
            expected="finite numbers",
            fix="Lower the learning rate or check that site's signals.",
        )
    return update


def update_norm(update: Vector, sent: Vector) -> float:
    """How far a site has moved the weights: Euclidean norm of (P,) update - sent."""
    return float(np.linalg.norm(update.astype(np.float64) - sent))


def exploding(
    norms: Mapping[str, float], history: Mapping[str, Sequence[float]], weights_norm: float
) -> list[str]:
    """Sites whose update is far longer than all that there is to compare it with.

    An update is exploding if it is longer than FAR times the median of the other sites' in this round, unless the site
    was always so: within FAR times the median of its own earlier ones, and within ABSURD times the others. Where fewer
    than two others have moved, its own earlier ones decide; and no update may be longer than ABSURD times the weights
    themselves. Sites that did not move (no steps) are no measure.

    Args:
        norms: site -> norm of its update in this round.
        history: site -> norms of its earlier updates.
        weights_norm: norm of the weights that were sent.
    """
    found = []
    for site, norm in sorted(norms.items()):
        others = _median([other for name, other in norms.items() if name != site])
        own = _median(history.get(site, ()))
        far_from_others = others is not None and norm > FAR * others
        far_from_own = own is not None and norm > FAR * own
        if others is None:
            wrong = far_from_own
        else:
            wrong = far_from_others and (own is None or far_from_own or norm > ABSURD * others)
        if wrong or norm > ABSURD * max(weights_norm, 1.0):
            found.append(site)
    return found


def _median(norms: Sequence[float]) -> float | None:
    """Of the norms that are a measure; None of fewer than two."""
    moved = [norm for norm in norms if norm > 0]
    return float(np.median(moved)) if len(moved) >= FEWEST_TO_COMPARE else None


FAR, ABSURD, FEWEST_TO_COMPARE = 10.0, 100.0, 2


def aggregation_weight(settings: StudySettings, stage: str, patients: int, events: int) -> float:
    """A site's weight in the average.

    Losses that are sums over patients are weighted by patients, so that the fixed point is the pooled one;
    partial likelihoods of a batch or a site by events, since that is what they are sums over.
    """
    choice = settings.federation.weight
    if stage == "survival" and choice == "auto":
        choice = "patients" if settings.survival.loss in ("cox-pooled", "grouped") else "events"
    by_events = stage == "survival" and choice == "events"
    return float(events if by_events else patients)


def average(updates: Mapping[str, Vector], weights: Mapping[str, float]) -> Vector:
    """Weighted mean of the sites' vectors: float64 sums in the order of site names, so bit-reproducible.

    Args:
        updates: site name -> (P,) checked vector.
        weights: site name -> weight >= 0; at least one must be positive.

    Returns:
        (P,) float32.

    Raises:
        FederationError: FECG-506 if no site has a positive weight.

    Source: McMahan et al. 2017, FederatedAveraging.
    """
    names = sorted(updates)
    total = sum(weights[name] for name in names)
    if total <= 0:
        raise FederationError(
            "FECG-506",
            "aggregation weights",
            found=f"{len(names)} site(s), none with a positive weight",
            expected="at least one patient (or event, where weights are events)",
            fix='Use [federation] weight = "patients", or a loss that is a sum over patients.',
        )
    mean = np.zeros(len(next(iter(updates.values()))), dtype=np.float64)
    for name in names:
        mean += updates[name].astype(np.float64) * (weights[name] / total)
    return mean.astype(np.float32)


def median(updates: Mapping[str, Vector], weights: Mapping[str, float], hostile: int) -> Vector:
    """Median of each coordinate, whatever the sites' sizes: fewer than half of the sites can lie without harm.

    Source: Yin et al. 2018, arXiv 1803.01498.
    """
    del weights, hostile
    middle: NDArray[np.float64] = np.median(_stacked(updates), axis=0)
    return middle.astype(np.float32)


def trimmed_mean(updates: Mapping[str, Vector], weights: Mapping[str, float], hostile: int) -> Vector:
    """Mean of each coordinate without its `hostile` largest and smallest values, whatever the sites' sizes.

    Raises:
        FederationError: FECG-506 if nothing would be left.

    Source: Yin et al. 2018, arXiv 1803.01498.
    """
    del weights
    values = np.sort(_stacked(updates), axis=0)
    _refuse_too_few(len(values), 2 * hostile + 1, "trimmed-mean")
    mean: NDArray[np.float64] = values[hostile : len(values) - hostile].mean(axis=0)
    return mean.astype(np.float32)


def krum(updates: Mapping[str, Vector], weights: Mapping[str, float], hostile: int) -> Vector:
    """The one update that is closest to its `sites - hostile - 2` nearest others, as it came.

    Raises:
        FederationError: FECG-506 with fewer than 2 * hostile + 3 sites, for which the method promises nothing.

    Source: Blanchard et al. 2017, NeurIPS 30.
    """
    del weights
    values = _stacked(updates)
    _refuse_too_few(len(values), 2 * hostile + 3, "krum")
    squares = np.stack([np.square(values - own).sum(axis=1) for own in values])  # (sites, sites)
    nearest = np.sort(squares, axis=1)[:, 1 : len(values) - hostile - 1]  # the first is the update itself
    closest: NDArray[np.float64] = values[int(np.argmin(nearest.sum(axis=1)))]
    return closest.astype(np.float32)


def _stacked(updates: Mapping[str, Vector]) -> NDArray[np.float64]:
    """(sites, P) in the order of names."""
    return np.stack([updates[name] for name in sorted(updates)]).astype(np.float64)


def _refuse_too_few(sites: int, least: int, algorithm: str) -> None:
    if sites < least:
        raise FederationError(
            "FECG-506",
            f"updates for {algorithm}",
            found=f"{sites} site(s)",
            expected=f"at least {least} (federation.hostile-sites)",
            fix='Raise federation.quorum, or use algorithm = "median".',
        )


def combine(
    settings: FederationSettings, updates: Mapping[str, Vector], weights: Mapping[str, float]
) -> Vector:
    """The next weights, by `federation.algorithm`. What fedprox adds to the local steps is in `fedecg.training`."""
    if settings.algorithm in ROBUST:
        return ROBUST[settings.algorithm](updates, weights, settings.hostile_sites)
    return average(updates, weights)


ROBUST: dict[str, Callable[[Mapping[str, Vector], Mapping[str, float], int], Vector]] = {
    "median": median,
    "trimmed-mean": trimmed_mean,
    "krum": krum,
}
