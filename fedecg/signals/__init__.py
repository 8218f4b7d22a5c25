"""ECG files -> `Recording` in mV -> quality -> the network's input -> the signal store.

In:  WFDB and PhysioNet .mat files, or recordings made by the simulations.
Out: stores that `cohort` points into by row and that `training` reads in batches.
"""

from fedecg.signals.preprocessing import Powerline, preprocess
from fedecg.signals.quality import QUALITY_RULES, Quality, assess
from fedecg.signals.reading import header_path, read_recording
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
    "header_path",
    "preprocess",
    "quantised",
    "read_recording",
    "recording_from_leads",
    "store_key",
]
