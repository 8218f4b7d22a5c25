"""Explaining one ECG: its risk, where the network looked, and what hiding parts of the ECG does.

In:  a model of `fedecg.prediction`, a recording.
Out: `Explanation`. Called by `fedecg.report.explain`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedecg.codes import CODES
from fedecg.errors import SignalError
from fedecg.explanation.attention import Attention, attend, mixes_leads
from fedecg.explanation.beat import BeatAttention, beat_attention
from fedecg.explanation.occlusion import lead_occlusion, segment_occlusion
from fedecg.explanation.verdicts import ModelVerdicts
from fedecg.prediction.predictor import Model, Prediction
from fedecg.prediction.risk import HORIZONS_YEARS
from fedecg.signals import Recording, counts_in_mv

__all__ = ["Explanation", "explain"]


@dataclass(frozen=True, eq=False)
class Explanation:
    """All that is shown of one ECG.

    Attributes:
        prediction: log hazard, risks, percentile, warnings.
        signal_mv: (12, samples) the network's input.
        rate_hz: of it.
        attention: of this ECG, n = 1.
        beat: its median beat, n = 1.
        lead_change: (12,) change of the log hazard when the lead is hidden.
        segment_change: (12, steps) when 32 samples of a lead are hidden.
        mixes_leads: preset `paper`, whose time attention sees all leads.
        verdicts: what tests on many ECGs found of this model's attention; None = it was not tested.
    """

    prediction: Prediction
    signal_mv: NDArray[np.float32]
    rate_hz: float
    attention: Attention
    beat: BeatAttention
    lead_change: NDArray[np.float64]
    segment_change: NDArray[np.float64]
    mixes_leads: bool
    verdicts: ModelVerdicts | None = None


def explain(model: Model, recording: Recording, verdicts: ModelVerdicts | None = None) -> Explanation:
    """Predict one ECG and look at how the network came to it: about 12 * (steps + 1) passes of the network.

    Args:
        model: from `fedecg.load`.
        recording: as read; preprocessed here as in training.
        verdicts: of the model, from `read_verdicts`; None = it was not tested.

    Raises:
        SignalError: FECG-213, FECG-214, a recording that may not be used; FECG-326, no finite log hazard.
    """
    prepared = model.prepare(recording)
    (prediction,) = model.complete([prepared], HORIZONS_YEARS)
    if prepared.counts is None or prediction.code:
        raise SignalError(
            prediction.code,
            "recording",
            found=CODES[prediction.code],
            expected="a 12-lead ECG like those of training",
            fix="Record it again, or export it with all its leads.",
        )
    network, signal_mv = model.saved.network, counts_in_mv(prepared.counts)[None]
    attention, rate_hz = attend(network, signal_mv), float(model.signals.rate_hz)
    return Explanation(
        prediction,
        signal_mv[0],
        rate_hz,
        attention,
        beat_attention(attention, signal_mv, rate_hz),
        lead_occlusion(network, signal_mv)[0],
        segment_occlusion(network, signal_mv),
        mixes_leads(network),
        verdicts,
    )
