"""Group averages: where the network looks in patients of high and low risk, and in those with a finding.

In:  a network, a site's ECGs, log hazards and statement codes.
Out: `GroupSums` of each group that may leave the site, which add up over sites. Called by sites; read by the report.

A mean over patients says of no one of them where the network looked. It leaves a site only for a group of at least
`FEWEST_PATIENTS`, and only if that group differs in as many from every other group whose sums leave: else the
difference of two sums would speak of few. Sums of three and more groups can still be combined; what protects against
that is noise, which is not in these sums (`[privacy] sums = "plain"`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedecg.explanation.attention import AttentionSums, attend, group_attention
from fedecg.explanation.beat import BeatSums, beat_attention, beat_width, group_beats
from fedecg.model import Network
from fedecg.model.lead_maps import LEADS, STEP_SAMPLES

__all__ = [
    "FEWEST_PATIENTS",
    "GROUP_ECGS",
    "HIGH_RISK",
    "LOW_RISK",
    "GroupSums",
    "group_sums",
    "groups_of",
    "may_leave",
    "nobodys_group",
]

Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]

FEWEST_PATIENTS = 10  # whose sums of attention may leave a site; later the site's own policy
GROUP_ECGS = 400  # of a site, at most: one pass of the encoder each
LOW_RISK, HIGH_RISK = "low risk", "high risk"


@dataclass(frozen=True, eq=False)
class GroupSums:
    """Attention and beats of a group, additive over sites.

    Attributes:
        attention: over time and leads.
        beats: median beats, and time attention on them; those of nobody where too few have a whole beat.
    """

    attention: AttentionSums
    beats: BeatSums

    def __add__(self, other: GroupSums) -> GroupSums:
        return GroupSums(self.attention + other.attention, self.beats + other.beats)


def groups_of(
    log_hazard: NDArray[np.float64],
    codes: Sequence[Mapping[str, float]],
    cuts: Sequence[float],
    findings: Sequence[str],
) -> dict[str, Bool]:
    """Who belongs to which group; a patient may be in any number of them.

    Args:
        log_hazard: (n,).
        codes: n dictionaries, statement code -> likelihood in percent; a code with any likelihood counts as stated.
        cuts: of the log hazard, rising: below the first is low risk, from the last on is high risk.
        findings: statement codes, each a group.

    Returns:
        Name -> (n,) bool: high risk, low risk, then the findings in their order.
    """
    risk = {HIGH_RISK: log_hazard >= cuts[-1], LOW_RISK: log_hazard < cuts[0]} if cuts else {}
    stated = {code: np.array([code in row for row in codes], dtype=np.bool_) for code in findings}
    return risk | stated


def may_leave(groups: Mapping[str, Bool], apart: Bool) -> dict[str, Bool]:
    """The groups of enough patients that differ in enough from each other and from another set.

    Args:
        groups: name -> (n,) bool; one row a patient. Of two that are too alike the first is kept.
        apart: (n,) bool, whose sums leave, too: the ECGs of the tests.
    """
    kept: dict[str, Bool] = {}
    for name, members in groups.items():
        others = [apart, *kept.values()]
        alike = any(np.sum(members != other) < FEWEST_PATIENTS for other in others)
        if members.sum() >= FEWEST_PATIENTS and not alike:
            kept[name] = members
    return kept


def group_sums(
    network: Network, signal_mv: Float32, rate_hz: float, groups: Mapping[str, Bool]
) -> dict[str, GroupSums]:
    """Sums of each group.

    Args:
        network: in any mode; comes back in it.
        signal_mv: (n, 12, samples) float32, mV, one ECG a patient.
        rate_hz: of them.
        groups: that may leave; name -> (n,) bool.

    Raises:
        ModelError: FECG-353, signals that do not fit.
    """
    attention = attend(network, signal_mv)
    beats = group_beats(beat_attention(attention, signal_mv, rate_hz), groups)
    return {
        name: GroupSums(sums, _enough(beats[name]))
        for name, sums in group_attention(attention, groups).items()
    }


def nobodys_group(samples: int, rate_hz: float) -> GroupSums:
    """The sums of no patient: shapes.

    Args:
        samples: of a signal. rate_hz: of the signals.
    """
    steps = samples // STEP_SAMPLES
    attention = AttentionSums(0, np.zeros((LEADS, steps)), np.zeros((LEADS, LEADS)))
    return GroupSums(attention, _no_beats(rate_hz))


def _enough(beats: BeatSums) -> BeatSums:
    return beats if beats.ecgs >= FEWEST_PATIENTS else _no_beats(beats.rate_hz)


def _no_beats(rate_hz: float) -> BeatSums:
    nothing = np.zeros((LEADS, beat_width(rate_hz)))
    return BeatSums(rate_hz, 0, nothing, nothing)
