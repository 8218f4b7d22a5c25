"""A finished model and its predictions: the preprocessing, the quality rules and the network of its training.

In:  a model folder; recordings. Out: `Prediction`s. Called by `files`, `outside` and anyone's Python.

    model = fedecg.load("runs/demo/model")
    model.predict(fedecg.signals.read_recording("records/00001_hr")).risks

A record goes the way that it went into the training's signal store, counts of 1 µV and all, so it gets the log hazard
that the study's own evaluation gave it. Research use; not a medical device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fedecg.codes import CODES
from fedecg.config import SignalSettings
from fedecg.errors import ClinicalInputError, ModelError, SignalError
from fedecg.files import in_words
from fedecg.model import BaselineEncoder, DualAttentionEncoder, SavedModel, load_model
from fedecg.prediction.risk import (
    HORIZONS_YEARS,
    HorizonRisk,
    PercentileBound,
    RiskScale,
    checked_horizons_years,
)
from fedecg.signals import LEADS, Quality, Recording, assess, counts_in_mv, quantised
from fedecg.signals.store_writer import refusal

__all__ = ["BATCH", "DISCLAIMER", "Model", "Prediction", "Prepared", "load"]

BATCH = 64
DISCLAIMER = "For research use. Not a medical device: not for diagnosis or treatment."
NOT_FINITE = "FECG-326"
# A signal shorter than this share of the network's input is mostly filled with zeros; of one that is longer by as
# much a part is not read.
SHORT = 0.9
# Rule -> what is said of the leads that break it.
FAULTS = {
    "non_finite": "gaps",
    "flat": "flat",
    "saturated": "held at an extreme",
    "zero_padded": "padded with zeros",
    "einthoven": "limb leads that do not belong together",
    "high_amplitude": "amplitudes are unusually high (check gain and unit)",
}
# Rule -> what is said of a recording that breaks it as a whole.
WHOLE_FAULTS = {
    "low_amplitude": "amplitudes are unusually low (check gain and unit)",
    "no_beats": "no heartbeats are seen: noise?",
    "inverted": "I, II and V6 point downwards: a wrong sign, or electrodes swapped?",
    "limb_swap": "limb leads run against V6, or one is still: electrodes swapped?",
    "paced": "spikes of a pacemaker are seen",
}


@dataclass(frozen=True)
class Prediction:
    """What a model says of one recording.

    Attributes:
        log_hazard: no unit, larger means earlier event; None where the recording is refused.
        risks: one a horizon; empty where the model has no baseline hazard yet. Their intervals are the uncertainty
            of the baseline hazard alone, not of the network.
        percentile: percent of the training study's validation patients with a lower log hazard; None where the model
            does not say who they were.
        warnings: faults that quality rules found, and in which leads; of a file that cannot be read, what was found.
        code: "" or the FECG code of the refusal.
        percentile_bound: "at least" or "at most" where the log hazard lies beyond the population's outermost cuts.
    """

    log_hazard: float | None
    risks: tuple[HorizonRisk, ...] = ()
    percentile: float | None = None
    warnings: tuple[str, ...] = ()
    code: str = ""
    percentile_bound: PercentileBound = ""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A recording on its way to the network.

    Attributes:
        counts: (12, samples) int16 as in a signal store, or None where it is refused.
        warnings, code: as in `Prediction`.
    """

    counts: NDArray[np.int16] | None = field(repr=False)
    warnings: tuple[str, ...] = ()
    code: str = ""


class Model:
    """A model that predicts.

    Args:
        saved: as read from its folder.

    Attributes:
        scale: baseline hazard and population, or None before a survival stage.

    Raises:
        ModelError: FECG-321, FECG-345, a baseline or population that cannot be.
    """

    def __init__(self, saved: SavedModel) -> None:
        self.saved = saved
        self.scale = None if saved.baseline is None else RiskScale(saved.baseline, saved.population)

    @property
    def disclaimer(self) -> str:
        """What stands beside every prediction."""
        simulated = " It was trained on SIMULATED outcomes: its risks are not those of patients."
        return DISCLAIMER + (simulated if self.saved.outcomes == "simulated" else "")

    @property
    def signals(self) -> SignalSettings:
        """How a recording becomes the network's input."""
        return self.saved.signals

    @property
    def encoder(self) -> DualAttentionEncoder | BaselineEncoder:
        """The encoder alone, in evaluation mode: (N, 12, samples) float32 -> (N, embedding_size).

        Preset `fedecg` takes mV. Preset `paper` takes what the authors' takes, z-scores of each lead
        (`fedecg.model.lead_maps.zscore_leads`); `saved.network.embed` makes them of mV.
        """
        return self.saved.network.encoder

    def check_predicts(self) -> None:
        """Refuse a model whose risk head nobody trained.

        Raises:
            ModelError: FECG-316, its weights are imported ones.
        """
        if self.saved.imported is not None:
            raise ModelError(
                "FECG-316",
                "model",
                found=f"imported weights ({', '.join(self.saved.imported.parts)}) and an untrained risk head",
                expected="a model that a study trained",
                fix="Use fedecg.load(MODEL).encoder, or begin a study with it: --set align.start=MODEL.",
            )

    def predict(self, recording: Recording, horizons_years: Sequence[float] = HORIZONS_YEARS) -> Prediction:
        """Predict one recording.

        Raises:
            SignalError: FECG-213, FECG-214, FECG-272, FECG-299, a recording that may not be used; FECG-326, no finite
                log hazard.
            ModelError: FECG-316, imported weights; FECG-346, horizons that are not positive and rising.
        """
        (prediction,) = self.predict_many([recording], horizons_years)
        if prediction.code:
            raise SignalError(
                prediction.code,
                "recording",
                found=CODES[prediction.code],
                expected="a 12-lead ECG like those of training",
                fix="Record it again, or export it with all its leads.",
            )
        return prediction

    def predict_many(
        self, recordings: Iterable[Recording], horizons_years: Sequence[float] = HORIZONS_YEARS
    ) -> list[Prediction]:
        """Predict many, in their order and in batches; one that may not be used has its code and no log hazard.

        Raises:
            ModelError: FECG-316, imported weights; FECG-346, horizons that are not positive and rising.
        """
        horizons = checked_horizons_years(horizons_years)
        predictions: list[Prediction] = []
        for batch in _batches(recordings):
            predictions += self.complete([self.prepare(recording) for recording in batch], horizons)
        return predictions

    def prepare(self, source: Recording | Callable[[], Recording]) -> Prepared:
        """Read (where `source` is a function), judge and preprocess; safe to call from several threads."""
        try:
            recording = source if isinstance(source, Recording) else source()
        except ClinicalInputError as error:
            return Prepared(None, (f"{error.what}: {error.found}",), error.code)
        except OSError as error:
            return Prepared(None, (f"record: {in_words(error)}",), "FECG-201")
        quality = assess(recording)
        warnings = (*_faults(quality), *_length_warning(recording, self.signals))
        code = refusal(recording, quality, self.signals)
        if code:
            return Prepared(None, warnings, code)
        try:
            counts, clipped = quantised(recording, self.signals, self.signals.powerline)
        except SignalError as error:  # no median beat
            return Prepared(None, warnings, error.code)
        beyond = (f"{clipped} samples beyond 32.767 mV",) if clipped else ()
        return Prepared(counts, warnings + beyond)

    def complete(self, prepared: Sequence[Prepared], horizons_years: Sequence[float]) -> list[Prediction]:
        """Run the network on one batch; refused recordings keep their places."""
        usable = [one.counts for one in prepared if one.counts is not None]
        found = iter(self._predictions(np.stack(usable), horizons_years) if usable else ())
        return [
            Prediction(None, warnings=one.warnings, code=one.code)
            if one.counts is None
            else _with_warnings(next(found), one.warnings)
            for one in prepared
        ]

    def log_hazards(self, counts: NDArray[np.int16]) -> NDArray[np.float64]:
        """Log hazards (n,) of preprocessed recordings (n, 12, samples), in counts of 1 µV.

        Raises:
            ModelError: FECG-316, imported weights.
        """
        self.check_predicts()
        network = self.saved.network
        with torch.inference_mode():
            signal_mv = torch.from_numpy(counts_in_mv(counts))
            return np.asarray(network.log_hazard(network.embed(signal_mv)).double().numpy())

    def _predictions(self, counts: NDArray[np.int16], horizons_years: Sequence[float]) -> list[Prediction]:
        log_hazard = self.log_hazards(counts)
        finite = np.isfinite(log_hazard)
        known = np.where(finite, log_hazard, 0.0)
        risks = self.scale.risks(known, horizons_years) if self.scale else [()] * len(known)
        percentiles = self.scale.percentiles(known) if self.scale else [None] * len(known)
        bounds: list[PercentileBound] = [""] * len(known)
        if self.scale:
            bounds = self.scale.percentile_bounds(known)
        return [
            Prediction(float(eta), risk, percentile, percentile_bound=bound)
            if usable
            else Prediction(None, code=NOT_FINITE)
            for eta, risk, percentile, bound, usable in zip(
                known, risks, percentiles, bounds, finite, strict=True
            )
        ]


def load(folder: str | Path) -> Model:
    """Read a model folder and check its hashes.

    Raises:
        ModelError: FECG-306..309 files, format, hashes; FECG-321, FECG-345 a baseline or population that cannot be.
    """
    return Model(load_model(folder))


def _with_warnings(prediction: Prediction, warnings: tuple[str, ...]) -> Prediction:
    return replace(prediction, warnings=warnings) if warnings else prediction


def _faults(quality: Quality) -> tuple[str, ...]:
    """One text a rule that is broken, with the leads that break it."""
    broken = {
        fault: [lead for lead, bad in zip(LEADS, getattr(quality, rule).tolist(), strict=True) if bad]
        for rule, fault in FAULTS.items()
        if getattr(quality, rule).any()
    }
    of_leads = tuple(f"{fault}: {_named(leads)}" for fault, leads in broken.items())
    return of_leads + tuple(text for rule, text in WHOLE_FAULTS.items() if getattr(quality, rule))


def _named(leads: Sequence[str]) -> str:
    return "all leads" if len(leads) == len(LEADS) else ", ".join(leads)


def _length_warning(recording: Recording, signals: SignalSettings) -> tuple[str, ...]:
    if signals.input == "median":  # of all beats, however long the recording is
        return ()
    lasts_s, read_s = recording.signal_mv.shape[1] / recording.rate_hz, signals.samples / signals.rate_hz
    if SHORT * lasts_s > read_s:
        return (f"lasts {lasts_s:.1f} s, of which the network reads the middle {read_s:.1f} s",)
    if lasts_s < SHORT * read_s:
        return (f"lasts {lasts_s:.1f} s of the {read_s:.1f} s that the network reads",)
    return ()


def _batches(recordings: Iterable[Recording]) -> Iterator[list[Recording]]:
    waiting = iter(recordings)
    while batch := list(islice(waiting, BATCH)):
        yield batch
