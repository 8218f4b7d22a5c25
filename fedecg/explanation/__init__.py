"""Reading the network: its two kinds of attention, and tests of whether they explain anything.

In:  a network, signals (n, 12, samples) in mV, outcomes where they are known.
Out: maps of attention and occlusion an ECG; sums of the tests, which add up over sites; verdicts in words.
Called by sites, the coordinator and `fedecg.report`.
"""

from fedecg.explanation.attention import (
    Attention,
    AttentionSums,
    attend,
    attention_sums,
    group_attention,
    mixes_leads,
    receptive_samples,
    strip_scale,
)
from fedecg.explanation.beat import (
    AFTER_S,
    BEFORE_S,
    BeatAttention,
    BeatSums,
    beat_attention,
    beat_sums,
    group_beats,
    r_peaks,
)
from fedecg.explanation.deletion import ORDERS, Deletion, DeletionSums, deletion, deletion_sums
from fedecg.explanation.faithfulness import (
    THRESHOLDS,
    Faithfulness,
    FaithfulnessSums,
    Thresholds,
    Verdict,
    caption,
    faithfulness,
    faithfulness_sums,
)
from fedecg.explanation.groups import FEWEST_PATIENTS, GroupSums, group_sums, groups_of, may_leave
from fedecg.explanation.occlusion import (
    Occlusion,
    OcclusionSums,
    lead_occlusion,
    occlusion,
    occlusion_sums,
    segment_occlusion,
    time_occlusion,
)
from fedecg.explanation.planted import MEASURED, PlantedCounts, planted_counts, planted_sentence
from fedecg.explanation.randomisation import (
    Randomisation,
    RandomisationSums,
    randomisation,
    randomisation_sums,
    shuffled,
)
from fedecg.explanation.single import Explanation, explain
from fedecg.explanation.stability import Stability, StabilitySums, stability, stability_sums

__all__ = [
    "AFTER_S",
    "BEFORE_S",
    "FEWEST_PATIENTS",
    "MEASURED",
    "ORDERS",
    "THRESHOLDS",
    "Attention",
    "AttentionSums",
    "BeatAttention",
    "BeatSums",
    "Deletion",
    "DeletionSums",
    "Explanation",
    "Faithfulness",
    "FaithfulnessSums",
    "GroupSums",
    "Occlusion",
    "OcclusionSums",
    "PlantedCounts",
    "Randomisation",
    "RandomisationSums",
    "Stability",
    "StabilitySums",
    "Thresholds",
    "Verdict",
    "attend",
    "attention_sums",
    "beat_attention",
    "beat_sums",
    "caption",
    "deletion",
    "deletion_sums",
    "explain",
    "faithfulness",
    "faithfulness_sums",
    "group_attention",
    "group_beats",
    "group_sums",
    "groups_of",
    "lead_occlusion",
    "may_leave",
    "mixes_leads",
    "occlusion",
    "occlusion_sums",
    "planted_counts",
    "planted_sentence",
    "r_peaks",
    "randomisation",
    "randomisation_sums",
    "receptive_samples",
    "segment_occlusion",
    "shuffled",
    "stability",
    "stability_sums",
    "strip_scale",
    "time_occlusion",
]
