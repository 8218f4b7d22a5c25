"""What stands in the run folder, as far as it can be read: files that are missing, damaged or half-written are named.

In:  status.json, rounds.json, events.jsonl, result.json, failed.json, study.toml of a run, while somebody writes them.
Out: a `RunView`, one a change. Called by the dashboard and the metrics, from several threads; loads neither torch nor
Flower. `RunFiles` raises nothing: whoever watches a study must not end it, nor go blind because one file is damaged.
`read_document` is for commands, which look once at one file that says where the run stands, and must know.
"""

from __future__ import annotations

import os
import re
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any, Generic, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, TypeAdapter, ValidationError

from fedecg.config import SITE_NAME, StudySettings, load_study
from fedecg.errors import FedecgError, RunInputError
from fedecg.files import denied, in_words

__all__ = [
    "CIndex",
    "Event",
    "Failure",
    "Result",
    "Round",
    "RunFiles",
    "RunView",
    "SiteEntry",
    "Status",
    "read_document",
]

EVENTS_KEPT = 200
MOST_BYTES = 64_000_000  # of one file: a study of 5,000 rounds over 30 sites writes about 10 MB
FINISHED = ("completed", "completed-partial")
AT_WORK = ("online", "working", "late")  # states of a site that are over once nothing runs

T = TypeVar("T")
D = TypeVar("D", bound="Document")


class Document(BaseModel):
    """Part of a file that another process wrote: known keys must be right, later versions may add some."""

    model_config = ConfigDict(
        strict=True,
        extra="ignore",
        frozen=True,
        alias_generator=lambda name: name.rstrip("_").replace("_", "-"),
        populate_by_name=True,
        allow_inf_nan=False,
    )


class SiteEntry(Document):
    """A site in status.json."""

    name: str
    state: str
    last_round: int | None = None
    code: str | None = None
    seconds: float | None = None  # of its last answer


class CIndex(Document):
    """What validation said."""

    stratified: float | None = None
    global_: float | None = None
    lower: float | None = None  # guaranteed bounds of the global one
    upper: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    events: int | None = None
    few_events: bool = False


class Status(Document):
    """status.json."""

    study: str = ""
    run: str = ""
    lock: str = ""
    state: str
    code: str | None = None
    phase: str
    round: int = 0
    rounds: int = 0
    waiting_for: list[str] = []
    waited_s: float = 0.0
    at_most_s: float = 0.0
    notes: list[str] = []  # what whoever started the study was told
    sites: list[SiteEntry] = []
    c_index: CIndex | None = None
    bytes: int = 0  # since the process began; over the whole run: those of the rounds
    started: AwareDatetime
    updated: AwareDatetime
    eta_s: float | None = None

    def present(self, running: bool | None) -> Status:
        """As it is by now: where nothing runs, it waits for nobody and nobody works; a node without a name is no site.

        Args:
            running: whether a coordinator runs in the folder; None: that cannot be told.
        """
        sites = [site for site in self.sites if re.fullmatch(SITE_NAME, site.name)]
        if running is not False:
            return self.model_copy(update={"sites": sites})
        gone = [
            site.model_copy(update={"state": "offline"}) if site.state in AT_WORK else site for site in sites
        ]
        return self.model_copy(update={"sites": gone, "waiting_for": [], "waited_s": 0.0, "at_most_s": 0.0})


class Round(Document):
    """An entry of rounds.json."""

    stage: str
    round: int
    expected: list[str] = []
    answered: list[str] = []
    rejected: dict[str, str] = {}  # site -> code
    late: list[str] = []
    missing: list[str] = []
    loss: dict[str, float] = {}
    weights_evaluated: int | None = None
    validation: CIndex | None = None
    repeated: bool = False
    bytes: int = 0
    seconds: float = 0.0


class Event(Document):
    """A line of events.jsonl; what else it says is in `model_extra`."""

    model_config = ConfigDict(extra="allow")

    time: AwareDatetime
    event: str


class Result(Document):
    """What the page needs of result.json."""

    status: str = FINISHED[0]
    best_round: int | None = None
    code_fingerprint: str | None = None
    settings_sha256: str | None = None


class Failure(Document):
    """failed.json."""

    code: str
    message: str


REMEDIES = {
    "status.json": "Remove it: a running study writes it again within a second.",
    "failed.json": "Remove it: it says why the study ended, and the study then goes on with fedecg-server start.",
    "result.json": "Put it back from a backup, or begin another run: fedecg-server start --new.",
}


def read_document(kind: type[D], path: Path) -> D | None:
    """What a file of REMEDIES says; None where there is none.

    Raises:
        RunInputError: FECG-602 it cannot be read, or is not what a study writes.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except PermissionError as error:
        found, fix = denied(error, path)
        raise RunInputError(
            "FECG-602", f"run/{path.name}", found=found, expected="a file that this user may read", fix=fix
        ) from None
    except (OSError, ValueError) as error:
        raise RunInputError(
            "FECG-602",
            f"run/{path.name}",
            found=in_words(error),
            expected="the file as the study wrote it",
            fix=REMEDIES[path.name],
        ) from None


@dataclass(frozen=True)
class RunView:
    """A run folder at one moment; what is not there is None or empty.

    Attributes:
        events: the last 200.
        happened: event -> how often, over the whole run.
        rejected: code -> updates that rounds left out, over the whole run.
        problems: sentences about files that cannot be read.
    """

    status: Status | None = None
    rounds: list[Round] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    happened: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    result: Result | None = None
    finished: bool = False  # result.json stands, readable or not
    failed: Failure | None = None
    settings: StudySettings | None = None
    problems: tuple[str, ...] = ()

    def present(self, running: bool | None) -> RunView:
        """With the status as it is by now, whether or not a coordinator runs."""
        return self if self.status is None else replace(self, status=self.status.present(running))

    def state(self, running: bool | None, waits: bool = False) -> str:
        """Where the study stands, what its process said last and what has become of that process taken together.

        Args:
            running: whether a coordinator runs in the folder; None: that cannot be told.
            waits: whether the supervisor itself waits (`waits`), so that the study cannot go on.
        """
        stated = self.status.state if self.status else None
        if self.finished:
            written = self.result.status if self.result else stated
            return written if written in FINISHED else FINISHED[0]
        if self.failed:
            return "failed"
        if running or (running is None and stated):
            return "waiting" if waits and stated == "running" else stated or "starting"
        return "stopped" if stated or self.settings else "not-started"


class RunFiles:
    """Reads a run folder again and again; a file that has not changed is not read twice.

    Args:
        folder: the run folder, which need not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self._status = _File(folder / "status.json", TypeAdapter(Status).validate_json)
        self._rounds = _File(folder / "rounds.json", TypeAdapter(list[Round]).validate_json)
        self._result = _File(folder / "result.json", TypeAdapter(Result).validate_json)
        self._failed = _File(folder / "failed.json", TypeAdapter(Failure).validate_json)
        self._study = _File(folder / "study.toml", lambda _: load_study(folder / "study.toml"))
        self._events = _EventLog(folder / "events.jsonl")
        self._lock = Lock()
        self._view = RunView()

    def view(self) -> RunView:
        """The folder now; the same object as long as nothing has changed."""
        with self._lock:
            files = (self._status, self._rounds, self._result, self._failed, self._study)
            changed = [file.look() for file in (*files, self._events)]
            if any(changed):
                self._view = self._read()
            return self._view

    def _read(self) -> RunView:
        files = (self._status, self._rounds, self._result, self._failed, self._study, self._events)
        problems = [file.problem for file in files if file.problem]
        if self._status.value is None and not self._status.problem and self._rounds.value is not None:
            problems.append("status.json is missing: what the study does now is not known.")
        return RunView(
            status=self._status.value,
            rounds=self._rounds.value or [],
            events=list(self._events.last),
            happened=self._events.happened.copy(),
            rejected=self._events.rejected.copy(),
            result=self._result.value,
            finished=self._result.stands,
            failed=self._failed.value,
            settings=self._study.value,
            problems=tuple(problems),
        )


class _File(Generic[T]):
    """A file that is replaced as a whole, and what it says."""

    def __init__(self, path: Path, parse: Callable[[bytes], T]) -> None:
        self.path, self.parse = path, parse
        self.value: T | None = None
        self.problem = ""
        self._seen: tuple[int, ...] | None = ()  # None: it is not there; (): never looked

    @property
    def stands(self) -> bool:
        """Whether there was such a file at the last look."""
        return bool(self._seen)

    def look(self) -> bool:
        """Read it if it has changed; whether it has."""
        seen = _identity(self.path)
        if seen == self._seen:
            return False
        self._seen, self.value, self.problem = seen, None, ""
        if seen is not None:
            self._take()
        return True

    def _take(self) -> None:
        try:
            with self.path.open("rb") as file:
                data = file.read(MOST_BYTES + 1)
            if len(data) > MOST_BYTES:
                raise ValueError
            self.value = self.parse(data)
        except FileNotFoundError:  # removed since the look
            self._seen = None
        except OSError as error:
            self.problem = f"{self.path.name} cannot be read ({in_words(error)})."
        except (ValueError, RecursionError, FedecgError):
            self.problem = f"{self.path.name} is damaged or half-written; what it says is left out here."


class _EventLog:
    """events.jsonl, which only grows: each line is read once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._begin(None)

    def _begin(self, number: int | None) -> None:
        self._inode, self._offset, self._damaged = number, 0, 0
        self.last: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self.happened: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self._unreadable = ""

    @property
    def problem(self) -> str:
        """A sentence, or nothing."""
        if self._damaged:
            return f"{self.path.name} has damaged lines ({self._damaged}), which are left out here."
        return self._unreadable

    def look(self) -> bool:
        """Read what is new; whether there was anything."""
        before = self._inode, self._offset, self._unreadable
        try:
            self._grow()
            self._unreadable = ""
        except FileNotFoundError:
            self._begin(None)
        except OSError as error:
            self._unreadable = f"{self.path.name} cannot be read ({in_words(error)})."
        return (self._inode, self._offset, self._unreadable) != before

    def _grow(self) -> None:
        with self.path.open("rb") as file:
            found = os.fstat(file.fileno())
            if found.st_ino != self._inode or found.st_size < self._offset:
                self._begin(found.st_ino)
            file.seek(self._offset)
            data = file.read(MOST_BYTES)
        whole = data[: data.rfind(b"\n") + 1]  # a line without its end is still being written
        if not whole and len(data) == MOST_BYTES:
            whole = data  # no line at all: never read it again
        self._offset += len(whole)
        for line in whole.splitlines():
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            event = Event.model_validate_json(line)
        except ValidationError:
            self._damaged += 1
            return
        self.last.append(event)
        self.happened[event.event] += 1
        if event.event == "round":
            self.rejected.update(_codes((event.model_extra or {}).get("rejected")))


def _codes(rejected: Any) -> list[str]:
    return [str(code) for code in rejected.values()] if isinstance(rejected, dict) else []


def _identity(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
