"""What the study does at this moment, for `status` and the dashboard, and what has happened, for whoever asks later.

In:  phases, waits, rounds and codes as they come. Out: `status.json`, replaced as a whole, and `events.jsonl`, a line
an event, both in the run folder. Called by the study; names of sites, counts and codes only.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedecg.federation.rounds import RoundRecord
from fedecg.files import write_whole

__all__ = ["EVENTS", "STATUS", "Journal", "SiteLine"]

STATUS, EVENTS = "status.json", "events.jsonl"
UPDATE_EVERY_S = 1.0
# Codes of a site itself, or of no reply at all: a site is not told what it has said.
NO_VERDICTS = {"FECG-508", "FECG-541", "FECG-542", "FECG-554", "FECG-599"}


@dataclass
class SiteLine:
    """A site as `status` shows it."""

    state: str  # online, working, answered, late, rejected, offline, refused
    last_round: int | None = None
    code: str | None = None
    seconds: float | None = None  # of its last answer
    left_out: str | None = None  # why its last reply was left out, until it has answered again

    def entry(self, name: str) -> dict[str, Any]:
        """As it stands in status.json."""
        return {
            "name": name,
            "state": self.state,
            "last-round": self.last_round,
            "code": self.code,
            "seconds": self.seconds,
        }


@dataclass
class Journal:
    """Keeps both files of one run.

    Args:
        folder: the run folder.
    """

    folder: Path
    head: dict[str, Any] = field(default_factory=dict)  # study, run, lock
    notes: list[str] = field(default_factory=list)  # what whoever starts the study must be told
    sites: dict[str, SiteLine] = field(default_factory=dict)
    state: str = "starting"
    phase: str = "join"
    round: int = 0
    rounds: int = 0
    waiting_for: list[str] = field(default_factory=list)
    waited_s: float = 0.0
    at_most_s: float = 0.0
    c_index: dict[str, Any] | None = None
    bytes: int = 0
    code: str | None = None
    _written_s: float = float("-inf")
    _started: str = field(default_factory=lambda: now())

    def resume(self, records: Sequence[RoundRecord]) -> None:
        """Go on with a run that has made these rounds."""
        self.bytes = sum(record.bytes for record in records)
        for site, code in records[-1].rejected.items() if records else ():
            self.mark(site, "rejected", code)
        self.c_index = next((record.validation for record in reversed(records) if record.validation), None)

    @property
    def left_out(self) -> dict[str, str]:
        """Site -> the code under which its last reply was left out: what it is told with its next task."""
        return {name: line.left_out for name, line in sorted(self.sites.items()) if line.left_out}

    def event(self, event: str, **facts: object) -> None:
        """Append a line; names of sites, counts and codes only."""
        line = json.dumps({"time": now(), "event": event, **facts}, allow_nan=False)
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / EVENTS).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def enter(self, phase: str, rounds: int = 0, round_number: int = 0) -> None:
        """A phase begins."""
        if phase != self.phase or self.state == "starting":
            self.event("phase", phase=phase)
        self.state, self.phase, self.rounds, self.round = "running", phase, rounds, round_number
        self.write()

    def wait(self, names: list[str], waited_s: float, at_most_s: float, waiting: bool) -> None:
        """An exchange goes on; written at most once a second.

        Args:
            names: of the sites that have not answered.
            waited_s, at_most_s: since the exchange began, and how long it may last.
            waiting: whether this is more than the ordinary length of an exchange: sites take longer than usual, or
                those at work are too few for the quorum.
        """
        self.state = "waiting" if waiting else "running"
        self.waiting_for, self.waited_s, self.at_most_s = names, round(waited_s, 1), round(at_most_s, 1)
        if time.monotonic() - self._written_s >= UPDATE_EVERY_S:
            self.write()

    def mark(self, site: str, state: str, code: str | None = None, seconds: float | None = None) -> None:
        """What a site does now; its last round and its last seconds stay until they are replaced."""
        line = self.sites.setdefault(site, SiteLine(state))
        line.state, line.code = state, code
        if state == "answered":
            line.left_out = None
        elif state == "rejected" and code and code.startswith("FECG-5") and code not in NO_VERDICTS:
            line.left_out = code
        if seconds is not None:
            line.seconds = round(seconds, 3)
            line.last_round = self.round or line.last_round  # phases without rounds leave it

    def keep(self, record: RoundRecord) -> None:
        """A round is over."""
        self.waiting_for, self.waited_s, self.at_most_s = [], 0.0, 0.0
        self.bytes += record.bytes
        self.c_index = record.validation or self.c_index
        self.event(
            "round",
            stage=record.stage,
            round=record.round,
            answered=record.answered,
            late=record.late,
            missing=record.missing,
            rejected=record.rejected,
            repeated=record.repeated,
            seconds=record.seconds,
        )
        self.write()

    def end(self, state: str, code: str | None = None) -> None:
        """The study is over: completed, completed-partial or failed."""
        self.state, self.code, self.waiting_for = state, code, []
        self.phase = "done" if code is None else self.phase
        self.event("finish" if code is None else "fail", state=state, **({"code": code} if code else {}))
        self.write()

    def write(self) -> None:
        """Replace status.json."""
        self._written_s = time.monotonic()
        document = {
            **self.head,
            "state": self.state,
            "code": self.code,
            "phase": self.phase,
            "round": self.round,
            "rounds": self.rounds,
            "waiting-for": self.waiting_for,
            "waited-s": self.waited_s,
            "at-most-s": self.at_most_s,
            "notes": self.notes,
            "sites": [line.entry(name) for name, line in sorted(self.sites.items())],
            "c-index": self.c_index,
            "bytes": self.bytes,
            "started": self._started,
            "updated": now(),
        }
        text = json.dumps(document, indent=2, allow_nan=False) + "\n"
        write_whole(self.folder / STATUS, text, durable=False)


def now() -> str:
    """The present in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
