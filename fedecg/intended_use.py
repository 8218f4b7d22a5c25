"""What a model of fedecg is for, and what it is not for: one wording for model.json, the model card and the commands.

In:  nothing. Out: sentences. Called by `fedecg.model` (model.json), `fedecg.prediction` and `fedecg.report`.
"""

from __future__ import annotations

__all__ = ["INTENDED_USE", "NOT_INTENDED"]

INTENDED_USE: tuple[str, ...] = (
    "Research on ranking patients by time to heart failure from one 12-lead ECG.",
    "Evaluation on a further hospital's own ECGs and follow-up (fedecg evaluate), and recalibration to it.",
    "Comparison of ways to train over several hospitals.",
)
NOT_INTENDED: tuple[str, ...] = (
    "Diagnosis, treatment, triage or any other decision on a patient: it is not a medical device.",
    "Patients who have heart failure already, children, and ECGs unlike those it was trained on.",
    "Reading a single patient's risk as certain: its interval covers the baseline hazard alone, not the network.",
    "Causal statements: attention and occlusion say what the network used, not why a heart fails.",
)
