"""A planted finding: does attention find the spike that alone decides the hazard, and does occlusion?

In:  a network trained on ECGs whose hazard one spike decides; test ECGs that carry it; its lead and its time.
Out: `PlantedCounts`, which add up; a sentence that says what was measured. Called by tests and reports.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedecg.explanation.attention import attend
from fedecg.explanation.occlusion import lead_occlusion, time_occlusion
from fedecg.model import Network
from fedecg.model.lead_maps import STEP_SAMPLES

__all__ = ["FOUND_SHARE", "MEASURED", "PlantedCounts", "planted_counts", "planted_sentence"]

FOUND_SHARE = 0.9  # of the records; from here on a finding counts as found
# A step sees 152 samples and owns 32 of them: a spike is in sight of the steps beside its own.
WINDOW_STEPS = 1


@dataclass(frozen=True)
class PlantedCounts:
    """In how many records the spike was found, additive.

    Attributes:
        records: that carry the spike.
        attention_time: time attention of the spike's lead is highest within one step (32 samples) of the spike.
        attention_lead: the spike's lead receives most attention.
        occlusion_time: the log hazard moves most when a stretch within one step of the spike is hidden.
        occlusion_lead: the log hazard moves most when the spike's lead is hidden.
    """

    records: int
    attention_time: int
    attention_lead: int
    occlusion_time: int
    occlusion_lead: int

    def __add__(self, other: PlantedCounts) -> PlantedCounts:
        return PlantedCounts(
            self.records + other.records,
            self.attention_time + other.attention_time,
            self.attention_lead + other.attention_lead,
            self.occlusion_time + other.occlusion_time,
            self.occlusion_lead + other.occlusion_lead,
        )


# Three networks of preset `fedecg` and size `small`, trained on 400 planted ECGs each, on 298 others that carry the
# spike. By network: time attention 92, 6, 4 %; lead bars 0, 87, 0 %. A slow test makes and measures them again.
MEASURED = PlantedCounts(298, 108, 83, 298, 297)


def planted_counts(network: Network, signal_mv: NDArray[np.float32], lead: int, sample: int) -> PlantedCounts:
    """Look for the spike in four ways.

    Args:
        network: trained on such ECGs.
        signal_mv: (n, 12, samples) float32, mV, all with the spike.
        lead: index of its lead, 0 to 11.
        sample: of its peak.

    Raises:
        ModelError: FECG-353, signals that do not fit.
    """
    attention = attend(network, signal_mv)

    def near(found: NDArray[np.intp], step: int) -> int:
        return int(np.sum(np.abs(found - step) <= WINDOW_STEPS))

    def named(found: NDArray[np.intp]) -> int:
        return int(np.sum(found == lead))

    return PlantedCounts(
        len(signal_mv),
        near(attention.time[:, lead].argmax(axis=1), int(attention.step_of(np.array(sample)))),
        named(attention.bars.argmax(axis=1)),
        near(np.abs(time_occlusion(network, signal_mv)).argmax(axis=1), sample // STEP_SAMPLES),
        named(np.abs(lead_occlusion(network, signal_mv)).argmax(axis=1)),
    )


def planted_sentence(counts: PlantedCounts) -> str:
    """What was measured, for a report: who found the spike, and where attention missed it."""
    if not counts.records:
        return "No record carries the planted spike."
    ways = {
        "time attention": counts.attention_time,
        "lead bars": counts.attention_lead,
        "time occlusion": counts.occlusion_time,
        "lead occlusion": counts.occlusion_lead,
    }
    found = {way: count >= FOUND_SHARE * counts.records for way, count in ways.items()}
    attention = found["time attention"] and found["lead bars"]
    occlusion = found["time occlusion"] and found["lead occlusion"]
    numbers = ", ".join(f"{way} {count / counts.records:.0%}" for way, count in ways.items())
    verdict = {
        (True, True): "attention and occlusion found it",
        (True, False): "attention found it and occlusion missed it",
        (False, True): "attention missed it and occlusion found it",
        (False, False): "attention and occlusion missed it",
    }[attention, occlusion]
    return (
        f"Planted finding (one spike in one lead alone decides the hazard): {verdict}. "
        f"Found in {counts.records} records by {numbers}; {FOUND_SHARE:.0%} counts as found."
    )
