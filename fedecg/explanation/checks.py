"""Can these sums be? What the coordinator checks of a site's tests of attention before it adds them up.

In:  `FaithfulnessSums` in the right shapes, free of NaN. Out: nothing, or an error with a code. Called by the server.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import ArrayLike

from fedecg.errors import FederationError
from fedecg.explanation.deletion import DeletionSums
from fedecg.explanation.faithfulness import FaithfulnessSums
from fedecg.explanation.groups import FEWEST_PATIENTS, GROUP_ECGS, GroupSums
from fedecg.explanation.occlusion import OcclusionSums
from fedecg.explanation.randomisation import RandomisationSums
from fedecg.explanation.stability import StabilitySums

__all__ = ["check_faithfulness_sums", "check_group_sums"]

SLACK = 1e-4  # maps are float32: their rows add up to 1 within about 1e-6
ROUNDED = 2e-5  # group sums travel with five decimals
MOST_MV = 100.0  # of a mean beat's sample: far beyond any ECG


def check_faithfulness_sums(sums: FaithfulnessSums, site: str, most: int) -> None:
    """Refuse sums that no ECGs have.

    Args:
        sums: of one site.
        site: its name.
        most: ECGs that the site can have tested.

    Raises:
        FederationError: FECG-515 more ECGs than that; FECG-527 parts that contradict themselves or each other;
            FECG-358 sums of fewer patients than may leave a site.
    """
    ecgs = sums.randomisation.ecgs
    if 0 < ecgs < FEWEST_PATIENTS:
        raise _too_few(f"explanation sums of {site}", ecgs)
    if ecgs > most:
        raise FederationError(
            "FECG-515",
            f"ECGs of {site}",
            found=f"{ecgs}",
            expected=f"at most {most}, by the patients that it joined with and evaluation.explain-ecgs",
        )
    stability = sums.stability
    told = {
        "counts": ecgs == sums.deletion.ecgs == sums.occlusion.ecgs
        and (stability is None or stability.ecgs == ecgs),
        "randomisation": _distances_can_be(sums.randomisation),
        "deletion": _curves_can_be(sums.deletion),
        "occlusion": _changes_can_be(sums.occlusion),
        "pairs": _pairs_can_be(sums.occlusion),
        "stability": stability is None or _agreement_can_be(stability),
    }
    wrong = [part for part, agrees in told.items() if not agrees]
    if wrong:
        raise FederationError(
            "FECG-527",
            f"explanation sums of {site}",
            found=f"{len(wrong)} part(s) that contradict themselves or the others: {', '.join(wrong)}",
            expected="all parts from the same ECGs",
            fix="The site must run the same version of fedecg as the coordinator.",
        )


def _distances_can_be(sums: RandomisationSums) -> bool:
    """Distances lie within 0 and 1 an ECG, correlations within -1 and 1."""
    return _at_most(sums.distance, sums.ecgs) and _at_most(np.abs(sums.similarity), sums.ecgs)


def _curves_can_be(sums: DeletionSums) -> bool:
    """Areas are those between the curves, and no sum of squares is below what its sum needs."""
    shares = sums.counts / sums.counts[-1]
    between = [
        sign * np.trapezoid(curves[0] - curves[other], shares)
        for sign, curves in ((1, sums.deletion), (-1, sums.insertion))
        for other in (1, 2)
    ]
    limit = SLACK * (1 + np.abs(sums.deletion).max() + np.abs(sums.insertion).max())
    areas = bool(np.all(np.abs(sums.area.ravel() - between) <= limit))
    return areas and _at_most(sums.area**2, sums.ecgs * sums.squared)


def _changes_can_be(sums: OcclusionSums) -> bool:
    """What twelve leads receive adds up to 1 an ECG; no sum is larger than that of its absolute values."""
    received = abs(float(sums.bars.sum()) - sums.ecgs) <= SLACK * (1 + sums.ecgs)
    return received and _at_most(np.abs(sums.shift), sums.moved) and abs(sums.agreement) <= sums.ecgs + SLACK


def check_group_sums(groups: Mapping[str, GroupSums], known: Collection[str], site: str, most: int) -> None:
    """Refuse averages of groups that no patients have.

    Args:
        groups: of one site.
        known: names that a group can have.
        site: its name.
        most: ECGs that the site can have looked at.

    Raises:
        FederationError: FECG-358 fewer patients than may leave a site; FECG-515 more ECGs than the site has;
            FECG-527 unknown groups, or sums that cannot be.
    """
    fewest = min((sums.attention.ecgs for sums in groups.values()), default=FEWEST_PATIENTS)
    beats = min((sums.beats.ecgs for sums in groups.values() if sums.beats.ecgs), default=FEWEST_PATIENTS)
    if min(fewest, beats) < FEWEST_PATIENTS:
        raise _too_few(f"a group's sums of {site}", min(fewest, beats))
    largest = max((sums.attention.ecgs for sums in groups.values()), default=0)
    if largest > min(most, GROUP_ECGS):
        raise FederationError(
            "FECG-515",
            f"ECGs of a group of {site}",
            found=f"{largest}",
            expected=f"at most {min(most, GROUP_ECGS)}, by the patients that it joined with",
        )
    wrong = sum(name not in known or not _group_can_be(sums) for name, sums in groups.items())
    if wrong:
        raise FederationError(
            "FECG-527",
            f"groups of {site}",
            found=f"{wrong} of {len(groups)} that are unknown or contradict themselves",
            expected="groups of risk and findings of the study's code bank, sums from their ECGs",
            fix="The site must run the same version of fedecg as the coordinator.",
        )


def _too_few(what: str, ecgs: int) -> FederationError:
    return FederationError(
        "FECG-358",
        what,
        found=f"sums over {ecgs} patients",
        expected=f"nobody's, or those of at least {FEWEST_PATIENTS}",
        fix="The site must run the same version of fedecg as the coordinator.",
    )


def _pairs_can_be(sums: OcclusionSums) -> bool:
    """Which pairs are comparable does not depend on the log hazard; squares fit their sums (Cauchy, Schwarz)."""
    comparable = {one.comparable for one in (sums.plain, *sums.hidden)}
    pairs = max(comparable)
    return (
        len(comparable) == 1
        and pairs <= sums.ecgs * (sums.ecgs - 1) // 2
        and sums.events <= sums.ecgs
        and pairs <= sums.events * sums.ecgs
        and _at_most(4.0 * pairs**2, sums.ecgs * sums.pair_squares)
        and _at_most(sums.pair_squares, 2.0 * pairs * sums.ecgs)
        and _at_most(sums.gain_squares, sums.pair_squares)
        and _at_most(sums.gain_mixed**2, sums.gain_squares * sums.pair_squares)
    )


def _agreement_can_be(sums: StabilitySums) -> bool:
    return _at_most(max(abs(sums.time), abs(sums.leads)), sums.ecgs)


def _group_can_be(sums: GroupSums) -> bool:
    """Maps add up to 1 an ECG, no beat has more attention than there is, or more ECGs than its group."""
    attention, beats = sums.attention, sums.beats
    ecgs, steps = attention.ecgs, attention.time.shape[1]
    rows = np.concatenate([attention.time.sum(axis=1), attention.leads.sum(axis=1)])
    limit = SLACK * (1 + ecgs) + ROUNDED * max(steps, 12)
    return (
        bool(np.all(np.abs(rows - ecgs) <= limit))
        and float(min(attention.time.min(), attention.leads.min(), beats.time.min())) >= 0
        and beats.ecgs <= ecgs
        and _at_most(beats.time, beats.ecgs * (steps + 1) / 2 + ROUNDED)
        and _at_most(np.abs(beats.signal_mv), beats.ecgs * MOST_MV)
    )


def _at_most(share: ArrayLike, whole: ArrayLike) -> bool:
    limit = np.asarray(whole, dtype=np.float64)
    return bool(np.all(np.asarray(share) <= limit * (1 + SLACK) + SLACK * 1e-2))
