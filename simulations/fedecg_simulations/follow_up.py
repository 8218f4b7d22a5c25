"""Sites that watch their patients for different times: follow-up cut after the patients have been dealt.

In:  a `Dataset`, site name -> rows, `partition.follow-up`. Out: both, as the sites' own tables would have them.
Called by the runner and by `fedecg-simulate partition`. The test part stays whole: every model is judged on the same.

With the S sites in the order of their names and h the longest follow-up, site k = 0 .. S-1 sees

    full         everything
    staggered    from the ECG to h (k + 1) / S: the first site stops early, the last goes on to the end
    disjoint     from h k / S to h (k + 1) / S only: later sites know whoever is still there (left truncation), and no
                 site sees the years that another one sees
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedecg.errors import CohortError
from fedecg_simulations.dataset import Dataset

__all__ = ["FollowUp", "as_followed"]

FollowUp = Literal["full", "staggered", "disjoint"]
Parts = dict[str, NDArray[np.int64]]


def as_followed(
    dataset: Dataset, parts: Mapping[str, NDArray[np.int64]], kind: FollowUp
) -> tuple[Dataset, Parts]:
    """Cut follow-up by site; patients whose time ended before their site began to look are left out.

    Args:
        dataset: N rows.
        parts: site name -> rows.
        kind: `partition.follow-up`.

    Raises:
        CohortError: FECG-625 a site whose window leaves it without training patients.
    """
    if kind == "full":
        return dataset, dict(parts)
    cohort = dataset.cohort
    days, event, died = cohort.follow_up_days.copy(), cohort.event.copy(), cohort.died.copy()
    entry_days, learning = cohort.entry_days.copy(), cohort.part != "test"
    width = float(days[learning].max(initial=0.0)) / len(parts)
    kept: Parts = {}
    for number, (name, rows) in enumerate(sorted(parts.items())):
        start, end = width * number * (kind == "disjoint"), width * (number + 1)
        seen = (days[rows] > start) & (entry_days[rows] < end)
        kept[name] = rows[~learning[rows] | seen]
        own = kept[name][learning[kept[name]]]
        entry_days[own] = np.maximum(entry_days[own], start)
        beyond = own[days[own] > end]
        days[beyond], event[beyond], died[beyond] = end, False, False
    _refuse_sites_without_training(cohort.part, kept)
    cut = replace(cohort, follow_up_days=days, event=event, died=died, entry_days=entry_days)
    return replace(dataset, cohort=cut), kept


def _refuse_sites_without_training(part: NDArray[np.str_], parts: Parts) -> None:
    without = [name for name, rows in parts.items() if not np.any(part[rows] == "train")]
    if without:
        raise CohortError(
            "FECG-625",
            "virtual sites",
            found=f"{len(without)} without a training patient in their window: {', '.join(without)}",
            expected="at least one training patient a site",
            fix='Use fewer sites, or partition.follow-up = "staggered".',
        )
