"""The dashboard's words for states, phases, sites, codes and events, as status.json and events.jsonl name them.

In:  names of states, lines of events.jsonl. Out: text. Called by `dashboard_page`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedecg.codes import CODES
from fedecg.report.wording import printable

__all__ = ["ODD_EVENTS", "SITE_WORDS", "STATE_WORDS", "code_words", "event_words", "is_repeat", "phase_words"]

SEED = ", seed "  # in the name of a stage that is trained again
STATE_WORDS = {
    "not-started": "Not started yet.",
    "starting": "Starting.",
    "running": "Running.",
    "waiting": "Waiting: too few sites for a round, or sites that take longer than usual.",
    "stopped": "Stopped. `fedecg-server start` goes on with it.",
    "completed": "Completed.",
    "completed-partial": "Completed, without some sites' replies.",
    "failed": "Ended with an error. Once its cause is mended: `fedecg-server resume`.",
}
PHASE_WORDS = {
    "join": "Sites are joining.",
    "align": "Stage 1: the network learns what ECG reports say.",
    "survey": "Sites count their events.",
    "survival": "Stage 2: the network learns time to heart failure.",
    "evaluate": "The best weights are evaluated.",
    "assess": "Sites send the sums of the final evaluation.",
    "explain": "Whether the model's attention is true is tested.",
}
SITE_WORDS = {
    "online": "connected",
    "working": "working",
    "answered": "answered",
    "late": "late: still busy with an earlier task",
    "rejected": "last reply left out",
    "offline": "not connected",
    "refused": "not admitted",
    "not-seen": "not seen yet",
}
ODD_EVENTS = {"refused", "late", "rejected", "below-quorum", "fail"}
EVENT_WORDS = {
    "start": "The study began",
    "resume": "The study went on",
    "join": "{site} joined",
    "refused": "{site} was not admitted",
    "late": "{site} was late",
    "rejected": "A reply of {site} was left out",
    "readmitted": "{site} is free again",
    "below-quorum": "Too few sites",
    "finish": "The study ended",
    "fail": "The study ended with an error",
}


def is_repeat(phase: str) -> bool:
    """Whether a stage is trained again with another seed."""
    return SEED in phase


def phase_words(phase: str) -> str:
    """What is done in a phase."""
    if is_repeat(phase):
        return f"It is trained again ({printable(phase)}), to test its attention."
    return PHASE_WORDS.get(phase, f"Phase {printable(phase)}.")


def code_words(code: str) -> str:
    """A code and what it stands for."""
    return f"{printable(code)}: {CODES.get(code, 'not a code of this version')}"


def event_words(event: str, facts: Mapping[str, Any]) -> str:
    """A line of events.jsonl, but for its time."""
    code = f" ({code_words(str(facts['code']))})" if facts.get("code") else ""
    if event == "phase":
        return f"Phase: {facts.get('phase')}"
    if event == "round":
        answered = facts.get("answered")
        told = f": {len(answered)} answered" if isinstance(answered, list) else ""
        return f"{facts.get('stage')} round {facts.get('round')} is over{told}"
    words = EVENT_WORDS.get(event, event).replace("{site}", str(facts.get("site", "a site")))
    return words + code
