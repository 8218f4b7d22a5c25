"""Can these sums be? What the coordinator checks of a site's tests of attention before it adds them up.

In:  `FaithfulnessSums` in the right shapes, free of NaN. Out: nothing, or an error with a code. Called by the server.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fedecg.errors import FederationError
from fedecg.explanation.deletion import DeletionSums
from fedecg.explanation.faithfulness import FaithfulnessSums
from fedecg.explanation.occlusion import OcclusionSums
from fedecg.explanation.randomisation import RandomisationSums

__all__ = ["check_faithfulness_sums"]

SLACK = 1e-4  # maps are float32: their rows add up to 1 within about 1e-6


def check_faithfulness_sums(sums: FaithfulnessSums, site: str, most: int) -> None:
    """Refuse sums that no ECGs have.

    Args:
        sums: of one site.
        site: its name.
        most: ECGs that the site can have tested.

    Raises:
        FederationError: FECG-515 more ECGs than that; FECG-527 parts that contradict themselves or each other.
    """
    ecgs = sums.randomisation.ecgs
    if ecgs > most:
        raise FederationError(
            "FECG-515",
            f"ECGs of {site}",
            found=f"{ecgs}",
            expected=f"at most {most}, by the patients that it joined with and evaluation.explain-ecgs",
        )
    told = {
        "counts": ecgs == sums.deletion.ecgs == sums.occlusion.ecgs,
        "randomisation": _distances_can_be(sums.randomisation),
        "deletion": _curves_can_be(sums.deletion),
        "occlusion": _changes_can_be(sums.occlusion),
        "pairs": _pairs_can_be(sums.occlusion),
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


def _pairs_can_be(sums: OcclusionSums) -> bool:
    """Which pairs are comparable does not depend on the log hazard."""
    comparable = {one.comparable for one in (sums.plain, *sums.hidden)}
    return len(comparable) == 1 and max(comparable) <= sums.ecgs * (sums.ecgs - 1) // 2


def _at_most(share: ArrayLike, whole: ArrayLike) -> bool:
    limit = np.asarray(whole, dtype=np.float64)
    return bool(np.all(np.asarray(share) <= limit * (1 + SLACK) + SLACK * 1e-2))
