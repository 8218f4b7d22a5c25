"""Occlusion: what the model loses when it does not see a lead, or a stretch of time.

In:  a network, signals (n, 12, samples) in mV; outcomes where they are known.
Out: `OcclusionSums`, which add up over sites; `Occlusion`; maps of one ECG or several.
Called by `faithfulness`, `planted` and `fedecg.report`.

Occlusion asks the model itself, which attention does not. It has a limit of its own: limb leads are linear
combinations of two, so hiding one of them can change little although the model uses what it shows.

The loss of C is a paired difference: both scores order the same comparable pairs of the same patients. Its standard
error is that of the one ratio (N - N') / D, from each patient's own pairs: much smaller than those of two C.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from fedecg.errors import ModelError
from fedecg.evaluation import FEW_EVENTS, Concordance, concordance, pair_counts
from fedecg.explanation.attention import attend
from fedecg.explanation.hiding import hidden_lead_hazards, hidden_step_hazards, plain_hazards
from fedecg.explanation.ranks import spearman
from fedecg.model import Network
from fedecg.model.lead_maps import LEADS, STEP_SAMPLES

__all__ = [
    "Occlusion",
    "OcclusionSums",
    "lead_occlusion",
    "occlusion",
    "occlusion_sums",
    "segment_occlusion",
    "time_occlusion",
]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class OcclusionSums:
    """Effect of hiding each lead, additive over sites.

    Attributes:
        ecgs: how many.
        plain: pair counts of the log hazard as it is, over pairs within the site.
        hidden: (12,) the same with each lead hidden.
        shift: (12,) sum over ECGs of log hazard with the lead hidden less log hazard as it is.
        moved: (12,) sum over ECGs of its absolute value.
        bars: (12,) sum over ECGs of the attention that each lead receives.
        agreement: sum over ECGs of the Spearman correlation, over the leads, of that attention with the absolute
            change.
        events: of these patients.
        gain_squares: (12,) sum over ECGs of g^2; g = its concordant pairs (half of the tied ones) with the log hazard
            as it is, less those with the lead hidden.
        gain_mixed: (12,) sum of g b; b = its comparable pairs.
        pair_squares: sum of b^2.
    """

    ecgs: int
    plain: Concordance
    hidden: tuple[Concordance, ...]
    shift: Float64
    moved: Float64
    bars: Float64
    agreement: float
    events: int
    gain_squares: Float64
    gain_mixed: Float64
    pair_squares: float

    def __add__(self, other: OcclusionSums) -> OcclusionSums:
        return OcclusionSums(
            self.ecgs + other.ecgs,
            self.plain + other.plain,
            tuple(one + two for one, two in zip(self.hidden, other.hidden, strict=True)),
            self.shift + other.shift,
            self.moved + other.moved,
            self.bars + other.bars,
            self.agreement + other.agreement,
            self.events + other.events,
            self.gain_squares + other.gain_squares,
            self.gain_mixed + other.gain_mixed,
            self.pair_squares + other.pair_squares,
        )


@dataclass(frozen=True, eq=False)
class Occlusion:
    """Result of lead occlusion; NaN where nothing is known.

    Attributes:
        ecgs: how many.
        c_index: stratified C of the log hazard as it is.
        comparable, events: pairs and events on which C stands.
        few_events: fewer than 30: the intervals cover less than they say.
        c_loss: (12,) C as it is less C with the lead hidden; > 0: the lead helps.
        c_loss_se: (12,) its paired standard error.
        c_loss_low, c_loss_high: (12,) 95 % interval, Student's t with events - 1 degrees of freedom.
        shift: (12,) mean change of the log hazard.
        moved: (12,) mean absolute change.
        bars: (12,) mean attention that each lead receives.
        agreement: mean Spearman correlation within an ECG of attention received and absolute change.
    """

    ecgs: int
    c_index: float
    comparable: int
    events: int
    few_events: bool
    c_loss: Float64
    c_loss_se: Float64
    c_loss_low: Float64
    c_loss_high: Float64
    shift: Float64
    moved: Float64
    bars: Float64
    agreement: float


def occlusion_sums(network: Network, signal_mv: Float32, time: ArrayLike, event: ArrayLike) -> OcclusionSums:
    """Hide one lead after the other: 13 forward passes an ECG.

    Args:
        network: any; comes back in its mode.
        signal_mv: (n, 12, samples) float32, mV, one ECG a patient.
        time: (n,) days to the event or the last contact.
        event: (n,) 1/True = event seen, 0/False = censored.

    Raises:
        ModelError: FECG-353, signals that do not fit.
        CohortError: FECG-235..238, outcomes that cannot be used.
    """
    plain, change = _lead_changes(network, signal_mv)
    bars = attend(network, signal_mv).bars
    credit, pairs = _credit(time, event, plain)
    gain = np.stack([credit - _credit(time, event, plain + change[:, lead])[0] for lead in range(LEADS)])
    return OcclusionSums(
        len(plain),
        concordance(time, event, plain),
        tuple(concordance(time, event, plain + change[:, lead]) for lead in range(LEADS)),
        change.sum(axis=0),
        np.abs(change).sum(axis=0),
        bars.sum(axis=0),
        float(spearman(bars, np.abs(change)).sum()),
        int(np.sum(np.asarray(event) > 0)),
        (gain**2).sum(axis=1),
        (gain * pairs).sum(axis=1),
        float((pairs**2).sum()),
    )


def occlusion(sums: OcclusionSums) -> Occlusion:
    """Means and changes of C."""
    ecgs = sums.ecgs or np.nan
    c_loss = np.array([sums.plain.c_index - hidden.c_index for hidden in sums.hidden])
    se = _paired_se(sums, c_loss)
    half = float(stdtrit(max(sums.events - 1, 1), 0.975)) * se
    return Occlusion(
        sums.ecgs,
        sums.plain.c_index,
        sums.plain.comparable,
        sums.events,
        sums.events < FEW_EVENTS,
        c_loss,
        se,
        c_loss - half,
        c_loss + half,
        sums.shift / ecgs,
        sums.moved / ecgs,
        sums.bars / ecgs,
        sums.agreement / ecgs,
    )


def lead_occlusion(network: Network, signal_mv: Float32) -> Float64:
    """(n, 12): log hazard with the lead hidden less log hazard as it is.

    Raises:
        ModelError: FECG-353, signals that do not fit.
    """
    return _lead_changes(network, signal_mv)[1]


def time_occlusion(network: Network, signal_mv: Float32) -> Float64:
    """(n, steps): change of the log hazard when 32 samples of all leads are replaced by their medians.

    Raises:
        ModelError: FECG-353, signals that do not fit.
    """
    steps = network.samples // STEP_SAMPLES
    hidden = np.eye(steps, dtype=np.bool_)[:, None, None, :].repeat(LEADS, axis=2)
    return (hidden_step_hazards(network, signal_mv, hidden) - plain_hazards(network, signal_mv)).T


def segment_occlusion(network: Network, signal_mv: Float32) -> Float64:
    """(12, steps) of one ECG: change of the log hazard when 32 samples of one lead are replaced by its median.

    Args:
        network: any; comes back in its mode.
        signal_mv: (1, 12, samples) float32, mV.

    Raises:
        ModelError: FECG-353, another number of ECGs than 1, or signals that do not fit.
    """
    steps = network.samples // STEP_SAMPLES
    if len(signal_mv) != 1:
        raise ModelError(
            "FECG-353",
            "signals to be explained",
            found=f"{len(signal_mv)} ECGs",
            expected="one ECG",
            fix="Hide segments ECG by ECG.",
        )
    hidden = np.eye(LEADS * steps, dtype=np.bool_).reshape(-1, 1, LEADS, steps)
    change = hidden_step_hazards(network, signal_mv, hidden) - plain_hazards(network, signal_mv)
    return change.reshape(LEADS, steps)


def _credit(time: ArrayLike, event: ArrayLike, risk: Float64) -> tuple[Float64, Float64]:
    """Each patient's concordant pairs + half of its tied ones, and its comparable pairs, (n,) each."""
    own = pair_counts(time, event, risk)
    comparable = (own.concordant + own.discordant + own.tied_risk).astype(np.float64)
    return own.concordant + 0.5 * own.tied_risk, comparable


def _paired_se(sums: OcclusionSums, c_loss: Float64) -> Float64:
    """(12,): with d the loss, N - N' - d D moves by g - d b when a patient is left out (see `evaluation.intervals`)."""
    if not sums.plain.comparable:
        return np.full(LEADS, math.nan)
    spread = sums.gain_squares - 2 * c_loss * sums.gain_mixed + c_loss**2 * sums.pair_squares
    return np.asarray(np.sqrt(np.maximum(spread, 0.0)) / sums.plain.comparable)


def _lead_changes(network: Network, signal_mv: Float32) -> tuple[Float64, Float64]:
    """Log hazards (n,) as they are, and their changes (n, 12) with each lead hidden."""
    plain = plain_hazards(network, signal_mv)
    return plain, (hidden_lead_hazards(network, signal_mv) - plain).T
