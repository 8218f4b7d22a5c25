"""A run folder as the study writes it, through the real Journal and RunFolder, at whatever point a test wants it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from fedecg.config import StudySettings
from fedecg.errors import FederationError
from fedecg.federation.rounds import RoundRecord
from fedecg_server.journal import Journal
from fedecg_server.run_folder import RunFolder

SITES = ("city", "coast", "valley")
LOCK = "5f" * 32


class WatchedRun:
    """Plays the study's part: the same calls in the same order, with figures of its own.

    Args:
        folder: of the run.
        settings: of the study.
        sites: names as they join.
    """

    def __init__(self, folder: Path, settings: StudySettings, sites: tuple[str, ...] = SITES) -> None:
        self.settings, self.sites = settings, sites
        self.folder, self.journal = RunFolder(folder, resumable=True), Journal(folder)

    def begin(self) -> None:
        """The study has started, and every site has joined."""
        self.folder.begin(self.settings)
        self.journal.head = {"study": self.settings.name, "run": "00c0ffee", "lock": LOCK}
        self.journal.event("start", run="00c0ffee", lock=LOCK)
        self.journal.write()
        self.journal.enter("join")
        for site in self.sites:
            self.journal.mark(site, "online")
            self.journal.event("join", site=site)
        self.journal.write()

    def play(self, stage: str, rounds: int, of: int, first: int = 1, **facts: Any) -> None:
        """Some rounds of a stage; `facts` are put into the record of the last."""
        for number in range(first, first + rounds):
            self.journal.enter(stage, of, number)
            last = number == first + rounds - 1
            record = self._record(stage, number, facts if last else {})
            for site in self.sites:
                code = record.rejected.get(site)
                state = "rejected" if code else "late" if site in record.late else "answered"
                self.journal.mark(
                    site, state, code, seconds=3.0 + len(site) / 10 if state == "answered" else None
                )
            self.folder.keep(record)
            self.journal.keep(record)

    def _record(self, stage: str, number: int, facts: dict[str, Any]) -> RoundRecord:
        away = {*facts.get("rejected", {}), *facts.get("late", [])}
        answered = [site for site in self.sites if site not in away]
        record = RoundRecord(
            stage, number, list(self.sites), answered, bytes=1_200_000, seconds=4.0 + number % 3
        )
        record.loss = {
            site: (0.9 - 0.05 * at) * math.exp(-number / 9) + 1.1 + 0.02 * at
            for at, site in enumerate(answered)
        }
        if stage == "survival":
            record.weights_evaluated = number - 1
            record.validation = self.c_index(number)
        for name, value in facts.items():
            setattr(record, name, value)
        return record

    def c_index(self, number: int) -> dict[str, Any]:
        """A curve that rises and falls a little at the end."""
        value = round(0.55 + 0.2 * (1 - math.exp(-number / 6)) - 0.002 * max(0, number - 20), 6)
        bounds = {
            "lower": value - 0.03,
            "upper": value + 0.035,
            "ci-low": value - 0.05,
            "ci-high": value + 0.05,
        }
        return {"stratified": value, "global": value + 0.01, **bounds, "events": 240, "few-events": False}

    def wait(self, names: list[str], waited_s: float, at_most_s: float, below_quorum: bool = False) -> None:
        """The study waits for some sites, and says so at once."""
        for name in names:
            self.journal.mark(name, "working")
        self.journal.wait(names, waited_s, at_most_s, below_quorum)
        self.journal.write()

    def finish(self, best: int, status: str = "completed") -> None:
        """The study is over."""
        self.journal.enter("evaluate")
        result = {"status": status, "run": "00c0ffee", "best-round": best}
        self.folder.finish(
            result | {"code-fingerprint": "ab" * 32, "settings-sha256": "cd" * 32}, self.settings
        )
        self.journal.end(status)

    def fail(self, error: FederationError) -> None:
        """The study is over, with a code."""
        self.folder.fail(error)
        self.journal.end("failed", error.code)
