"""ECG files -> `Recording` in mV -> quality -> the network's input -> the signal store.

In:  files of cardiographs and data sets (docs/formats.md), or recordings made by the simulations.
Out: stores that `cohort` points into by row and that `training` reads in batches.
"""

from fedecg.signals.preprocessing import Powerline, preprocess
from fedecg.signals.quality import QUALITY_RULES, Quality, assess
from fedecg.signals.reading import (
    formats,
    header_path,
    read_median,
    read_recording,
    read_recordings,
    recordings_in,
)
from fedecg.signals.recording import LEADS, Recording, recording_from_leads
from fedecg.signals.store import SignalStore, build_store, counts_in_mv, quantised, store_key

__all__ = [
    "LEADS",
    "QUALITY_RULES",
    "Powerline",
    "Quality",
    "Recording",
    "SignalStore",
    "assess",
    "build_store",
    "counts_in_mv",
    "formats",
    "header_path",
    "preprocess",
    "quantised",
    "read_median",
    "read_recording",
    "read_recordings",
    "recording_from_leads",
    "recordings_in",
    "store_key",
]
