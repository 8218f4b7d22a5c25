"""What the study does, in lines that a person can read while it runs.

In:  `run/status.json`, as the study replaces it. Out: lines of progress. Called by the supervisor; names of sites,
counts and codes only, as they stand in that file.
"""

from __future__ import annotations

import time
from pathlib import Path

from fedecg.errors import RunError
from fedecg.progress import Progress
from fedecg_server.run_view import Status, read_document

__all__ = ["Narrator"]

SAY_AGAIN_S = 60.0  # a wait that goes on is said again
WAIT_FROM_S = 10.0  # shorter waits are not worth a line
WAITING = "waiting"  # state of a study that has too few sites, or whose sites take longer than usual
ODD = {"late", "rejected", "offline", "refused"}


class Narrator:
    """Follows one status document.

    Args:
        status: where it is or will be.
        progress: where lines go.
    """

    def __init__(self, status: Path, progress: Progress) -> None:
        self.status, self.progress = status, progress
        self._written = 0  # change time of the document that was read last, in ns
        self._place: tuple[object, ...] = ()
        self._waiting: tuple[bool, tuple[str, ...]] | None = None
        self._sites: dict[str, str] = {}
        self._notes: set[str] = set()
        self._said_s = 0.0

    def look(self) -> None:
        """Say what is new."""
        try:
            written = self.status.stat().st_mtime_ns
            if written == self._written:
                return
            document = read_document(Status, self.status)
        except (OSError, RunError):  # not there yet, or damaged: the study replaces it within a second
            return
        if document is None:
            return
        self._written = written
        self._told(document)
        self._phase(document)
        self._wait(document)
        self._odd_sites(document)

    def _told(self, document: Status) -> None:
        for note in document.notes:
            if note not in self._notes:
                self._notes.add(note)
                self.progress.say(note)

    def _phase(self, document: Status) -> None:
        phase, number, rounds = document.phase, document.round, document.rounds
        if (phase, number) == self._place:
            return
        self._place = (phase, number)
        self._waiting = None
        score = document.c_index.stratified if document.c_index else None
        so_far = "" if score is None else f"; C-index {score:.3f}"
        self.progress.say(f"{phase} round {number} of {rounds}{so_far}" if rounds else f"{phase}{so_far}")

    def _wait(self, document: Status) -> None:
        names, waited, at_most = tuple(document.waiting_for), document.waited_s, document.at_most_s
        waiting = document.state == WAITING
        if waited < (WAIT_FROM_S if waiting else SAY_AGAIN_S) or not (names or waiting):
            return
        now = time.monotonic()
        if (waiting, names) == self._waiting and now - self._said_s < SAY_AGAIN_S:
            return
        self._waiting, self._said_s = (waiting, names), now
        whom = ", ".join(names) or "sites to join"
        begin = f"waiting for {whom}" if waiting else f"{whom}: at work"
        self.progress.say(f"{begin}, {waited:.0f} s of at most {at_most:.0f} s")

    def _odd_sites(self, document: Status) -> None:
        now = {site.name: site.state for site in document.sites}
        codes = {site.name: site.code for site in document.sites}
        for name, state in now.items():
            if state != self._sites.get(name) and (state in ODD or self._sites.get(name) in ODD):
                self.progress.say(f"{name}: {state}" + (f" ({codes[name]})" if codes[name] else ""))
        self._sites = now
