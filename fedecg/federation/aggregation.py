"""How replies become the next weights: pure functions on vectors, in the order of site names.

In:  one flat float32 vector a site and its aggregation weight. Out: the next global vector (float32).
Called by the server's strategy; knows neither Flower nor files, so that it can be proven.

Everything goes through the vectors by blocks of coordinates: what is sliced may lie on disk (`Update`), and no copy
in float64 is ever longer than a block. Each coordinate's result is that of the whole vectors, to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedecg.config import FederationSettings, StudySettings
from fedecg.errors import FederationError

__all__ = [
    "ROBUST",
    "Update",
    "aggregation_weight",
    "average",
    "check_update",
    "combine",
    "exploding",
    "norm",
    "refuse_too_few",
    "update_norm",
]

Vector = NDArray[np.float32]
BLOCK = 1 << 14  # coordinates


class Update(Protocol):
    """A site's vector, (P,) float32: an array, or something that reads its slices from elsewhere."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Vector: ...


def check_update(update: Vector | None, size: int) -> Vector:
    """Accept a site's vector only if it has the right length and is finite.

    Raises:
        FederationError: FECG-504 wrong length or missing; FECG-505 non-finite values (their count).
    """
    if update is None or update.shape != (size,):
        found = "none" if update is None else f"{update.size} numbers"
        raise FederationError("FECG-504", "update of a site", found=found, expected=f"{size} numbers")
    bad = sum(int(np.count_nonzero(~np.isfinite(update[part]))) for part in _blocks(size))
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
    parts = (update[part].astype(np.float64) - sent[part] for part in _blocks(len(sent)))
    return math.sqrt(sum(float(np.square(part).sum()) for part in parts))


def norm(weights: Vector) -> float:
    """Euclidean norm of (P,) weights."""
    parts = (weights[part].astype(np.float64) for part in _blocks(len(weights)))
    return math.sqrt(sum(float(np.square(part).sum()) for part in parts))


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
    partial likelihoods of a batch or a site by events, since that is what they are sums over. Under differential
    privacy neither is known, and every site counts the same: with plain SGD a site's step is a sum over its patients
    divided by the study's batch-size, so that equal weights are those of the pooled sum. Under that of sites each
    counts the same, too, since no site's share of a sum may exceed the clip.
    """
    if settings.privacy.mode in ("sample", "client"):
        return 1.0
    choice = settings.federation.weight
    if stage == "survival" and choice == "auto":
        choice = "patients" if settings.survival.loss in ("cox-pooled", "grouped") else "events"
    by_events = stage == "survival" and choice == "events"
    return float(events if by_events else patients)


def average(updates: Mapping[str, Update], weights: Mapping[str, float]) -> Vector:
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
    out = _like(updates)
    for part in _blocks(len(out)):
        mean = np.zeros(part.stop - part.start, dtype=np.float64)
        for name in names:
            mean += updates[name][part].astype(np.float64) * (weights[name] / total)
        out[part] = mean
    return out


def median(updates: Mapping[str, Update], weights: Mapping[str, float], hostile: int) -> Vector:
    """Median of each coordinate, whatever the sites' sizes: fewer than half of the sites can lie without harm.

    Source: Yin et al. 2018, arXiv 1803.01498.
    """
    del weights, hostile
    out = _like(updates)
    for part in _blocks(len(out)):
        out[part] = np.median(_stacked(updates, part), axis=0)
    return out


def trimmed_mean(updates: Mapping[str, Update], weights: Mapping[str, float], hostile: int) -> Vector:
    """Mean of each coordinate without its `hostile` largest and smallest values, whatever the sites' sizes.

    Raises:
        FederationError: FECG-506 if nothing would be left.

    Source: Yin et al. 2018, arXiv 1803.01498.
    """
    del weights
    sites, out = len(updates), _like(updates)
    refuse_too_few(sites, hostile, "trimmed-mean")
    for part in _blocks(len(out)):
        kept = np.sort(_stacked(updates, part), axis=0)[hostile : sites - hostile]
        # Added row by row: numpy's sum over a single column would go in another order.
        out[part] = sum(kept[1:], start=kept[0]) / len(kept)
    return out


def krum(updates: Mapping[str, Update], weights: Mapping[str, float], hostile: int) -> Vector:
    """The one update that is closest to its `sites - hostile - 2` nearest others, as it came.

    Raises:
        FederationError: FECG-506 with fewer than 2 * hostile + 3 sites, for which the method promises nothing.

    Source: Blanchard et al. 2017, NeurIPS 30.
    """
    del weights
    sites, out = len(updates), _like(updates)
    refuse_too_few(sites, hostile, "krum")
    squares = np.zeros((sites, sites))
    for part in _blocks(len(out)):
        values = _stacked(updates, part)
        squares += np.stack([np.square(values - own).sum(axis=1) for own in values])
    nearest = np.sort(squares, axis=1)[:, 1 : sites - hostile - 1]  # the first is the update itself
    closest = updates[sorted(updates)[int(np.argmin(nearest.sum(axis=1)))]]
    for part in _blocks(len(out)):
        out[part] = closest[part]
    return out


def _blocks(size: int) -> Iterator[slice]:
    """Of BLOCK coordinates each; the last may be shorter."""
    return (slice(start, min(start + BLOCK, size)) for start in range(0, size, BLOCK))


def _like(updates: Mapping[str, Update]) -> Vector:
    """(P,), to be filled."""
    return np.empty(len(next(iter(updates.values()))), dtype=np.float32)


def _stacked(updates: Mapping[str, Update], part: slice) -> NDArray[np.float64]:
    """(sites, block) in the order of names."""
    return np.stack([updates[name][part] for name in sorted(updates)]).astype(np.float64)


def refuse_too_few(sites: int, hostile: int, algorithm: str) -> None:
    """So few updates that so many hostile ones among them could decide.

    Args:
        sites: whose updates make a round.
        hostile: `federation.hostile-sites`.
        algorithm: `federation.algorithm`; those without a least number pass.

    Raises:
        FederationError: FECG-506.
    """
    if algorithm not in BESIDE_HOSTILE:
        return
    least = 2 * hostile + BESIDE_HOSTILE[algorithm]
    if sites < least:
        raise FederationError(
            "FECG-506",
            f"updates for {algorithm}",
            found=f"{sites} site(s)",
            expected=f"at least {least} (federation.hostile-sites)",
            fix="Raise federation.quorum or federation.fraction, where there are more sites; lower "
            'federation.hostile-sites; or use algorithm = "median".',
        )


def combine(
    settings: FederationSettings, updates: Mapping[str, Update], weights: Mapping[str, float]
) -> Vector:
    """The next weights, by `federation.algorithm`. What fedprox adds to the local steps is in `fedecg.training`."""
    if settings.algorithm in ROBUST:
        return ROBUST[settings.algorithm](updates, weights, settings.hostile_sites)
    return average(updates, weights)


BESIDE_HOSTILE = {"trimmed-mean": 1, "krum": 3}  # fewest sites, beside twice the hostile ones
ROBUST: dict[str, Callable[[Mapping[str, Update], Mapping[str, float], int], Vector]] = {
    "median": median,
    "trimmed-mean": trimmed_mean,
    "krum": krum,
}
