"""Recorders that differ from site to site: gain, mains hum, sampling rate, exchanged electrodes, missing leads.

In:  a `Dataset`, site name -> rows, `[drift]` settings, the study's seed. Out: the data set whose recordings come out
as its sites would have recorded them. Called by `virtual_sites`; the signals are changed when they are read, once, on
their way into the store, whose key names the recorders.

A site draws its recorder from the seed and its name, each property from a stream of its own: adding one kind of drift
leaves the others as they were. What varies from ECG to ECG is drawn from the seed and the ECG's number. All parts of a
site are changed alike, its test part as well: the recorder belongs to the hospital.

The order is that of the way from the skin to the file: electrodes are exchanged, mains hum is picked up at each
electrode (so that Einthoven's law holds for it, too), the amplifier has its gain, the recorder its rate, and leads that
it does not have are not recorded.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import partial

import numpy as np
import scipy.signal
from numpy.typing import NDArray

from fedecg.config import DriftSettings
from fedecg.signals import Recording
from fedecg_simulations.dataset import Dataset

__all__ = ["Recorder", "recorder_of", "recorders", "with_drift"]

MAINS_HZ = (50.0, 60.0)
HUM_SPREAD = 0.5  # log SD of the hum from ECG to ECG: where the cable lies, how the skin was prepared
CHEST = range(6, 12)  # V1-V6 in `signals.LEADS`: limb leads follow from each other, so none is missing alone
# Right arm and left arm exchanged: I turns over, II and III, aVR and aVL change places.
ARMS_EXCHANGED = (0, 2, 1, 4, 3, 5, 6, 7, 8, 9, 10, 11)
# Leads (rows, `signals.LEADS`) from the electrodes right arm, left arm, left leg, V1-V6 (columns); chest leads against
# Wilson's terminal.
LIMBS = ((-1, 1, 0), (-1, 0, 1), (0, -1, 1), (1, -0.5, -0.5), (-0.5, 1, -0.5), (-0.5, -0.5, 1))
WILSON = np.full((6, 3), -1 / 3)
LEADS_OF_ELECTRODES = np.block([[np.array(LIMBS), np.zeros((6, 6))], [WILSON, np.eye(6)]])

Source = Callable[[], Recording]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Recorder:
    """How a site records.

    Attributes:
        gain: amplitude in its files / true amplitude.
        hum_mv: amplitude of mains hum at an electrode, mV, in the median ECG; 0 = none.
        mains_hz: its frequency.
        rate_hz: sampling rate; None = that of the data set.
        exchanged: share of its ECGs with the arm electrodes exchanged.
        missing: leads that it does not record, by place in `signals.LEADS`.
    """

    gain: float = 1.0
    hum_mv: float = 0.0
    mains_hz: float = 50.0
    rate_hz: float | None = None
    exchanged: float = 0.0
    missing: tuple[int, ...] = ()


def with_drift(dataset: Dataset, parts: Mapping[str, Rows], settings: DriftSettings, seed: int) -> Dataset:
    """The data set with every site's ECGs as its own recorder would have taken them.

    Args:
        dataset: N rows; rows of no site stay as they are.
        parts: site name -> rows.
        settings: how far recorders differ.
        seed: of the study.
    """
    if settings == DriftSettings():
        return dataset
    recordings: list[Source] = list(dataset.recordings)
    told = []
    for name, recorder in recorders(parts, settings, seed).items():
        told.append((name, asdict(recorder), parts[name].tolist()))
        for row in parts[name]:
            record = int(dataset.cohort.record[row])
            recordings[record] = partial(_recorded, dataset.recordings[record], recorder, seed, record)
    digest = hashlib.sha256(json.dumps([seed, told]).encode()).hexdigest()
    return replace(dataset, recordings=recordings, source=f"{dataset.source}, recorders {digest}")


def recorders(parts: Mapping[str, Rows], settings: DriftSettings, seed: int) -> dict[str, Recorder]:
    """Site name -> its recorder."""
    return {name: recorder_of(name, settings, seed) for name in parts}


def recorder_of(name: str, settings: DriftSettings, seed: int) -> Recorder:
    """The recorder of a site: a matter of the seed and its name alone."""

    def draw(kind: str) -> np.random.Generator:
        return np.random.default_rng([seed, zlib.crc32(f"recorder {kind}".encode()), *name.encode()])

    missing = draw("missing").integers(0, settings.missing_leads + 1)
    return Recorder(
        gain=math.exp(settings.gain * draw("gain").standard_normal()),
        hum_mv=settings.hum_mv * draw("hum").random(),
        mains_hz=float(draw("mains").choice(MAINS_HZ)),
        rate_hz=float(draw("rate").choice(settings.rates_hz)) if settings.rates_hz else None,
        exchanged=settings.exchanged_arms * draw("arms").random(),
        missing=tuple(sorted(draw("leads").permutation(list(CHEST))[:missing].tolist())),
    )


def _recorded(source: Source, recorder: Recorder, seed: int, record: int) -> Recording:
    """One ECG as the recorder takes it."""
    original = source()
    rng = np.random.default_rng([seed, zlib.crc32(b"recorded"), record])
    exchanged, loud, phases, sizes = (
        rng.random() < recorder.exchanged,
        rng.standard_normal(),
        rng.uniform(0, 2 * math.pi, 9),
        rng.uniform(0.5, 1.5, 9),
    )
    signal_mv: NDArray[np.floating] = original.signal_mv
    if exchanged:
        signal_mv = signal_mv[list(ARMS_EXCHANGED)] * np.where(np.arange(12) == 0, -1, 1)[:, None]
    if recorder.hum_mv:
        amplitude_mv = recorder.hum_mv * math.exp(HUM_SPREAD * loud) * sizes
        signal_mv = signal_mv + hum(
            amplitude_mv, phases, recorder.mains_hz, original.rate_hz, signal_mv.shape[1]
        )
    signal_mv, rate_hz = _at_rate(signal_mv * recorder.gain, original.rate_hz, recorder.rate_hz)
    signal_mv = signal_mv.astype(np.float32)
    signal_mv[list(recorder.missing)] = np.nan
    return replace(original, signal_mv=signal_mv, rate_hz=rate_hz)


def hum(
    amplitude_mv: NDArray[np.float64],
    phases: NDArray[np.float64],
    mains_hz: float,
    rate_hz: float,
    samples: int,
) -> NDArray[np.float64]:
    """Hum of the twelve leads (12, samples), mV, of a sine at each electrode.

    A recorder that samples too slowly for it has filtered it out: zeros at 2 x mains_hz and below.

    Args:
        amplitude_mv, phases: (9,) of the electrodes right arm, left arm, left leg, V1-V6.
        mains_hz: frequency.
        rate_hz: samples a second of the recording.
        samples: of the recording.
    """
    if rate_hz <= 2 * mains_hz:
        return np.zeros((12, samples))
    time_s = np.arange(samples) / rate_hz
    electrodes = amplitude_mv[:, None] * np.sin(2 * math.pi * mains_hz * time_s + phases[:, None])
    return LEADS_OF_ELECTRODES @ electrodes


def _at_rate(
    signal_mv: NDArray[np.floating], rate_hz: float, wanted_hz: float | None
) -> tuple[NDArray[np.floating], float]:
    if wanted_hz is None or wanted_hz == rate_hz:
        return signal_mv, rate_hz
    ratio = Fraction(wanted_hz / rate_hz).limit_denominator(1000)
    resampled = scipy.signal.resample_poly(
        signal_mv, ratio.numerator, ratio.denominator, axis=1, padtype="line"
    )
    return resampled, float(rate_hz * ratio)
