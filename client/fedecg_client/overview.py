"""What a site can say of itself: what its agent does, how far it is, what happened last, what it has agreed to.

In:  the state folder. Out: documents for `--json`, lines for people. Called by `fedecg-client` status and studies, and
by doctor. Reads files only, so that it works beside a running agent, after it, and after a kill.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fedecg.codes import CODES
from fedecg.federation.lock import StudyLock
from fedecg_client.folder import SiteFolder
from fedecg_client.pinned import AGREED, PROPOSED, agreed_sha256
from fedecg_client.running import running_agent
from fedecg_client.site_status import EPSILON_SPENT, LEFT_OUT

__all__ = ["Joined", "joined_studies", "overview", "read_events", "status_lines"]

SILENT_S = 120.0  # an agent that waits says so at least every 40 s, one that works every second
LAST_EVENTS, TAIL_BYTES = 5, 1 << 18
BYTES_MB = 1e6


@dataclass(frozen=True)
class Joined:
    """A study that the site has met.

    Attributes:
        study: its name.
        lock: that the site agreed to; none if it has agreed to none, or the file cannot be read.
        proposed: a lock that waits for `accept`: the first, or a changed one.
        agreed: hash of a lock that was agreed to and has not come yet.
        damaged: the file of `lock` stands and cannot be read.
    """

    study: str
    lock: StudyLock | None
    proposed: StudyLock | None
    agreed: str | None
    damaged: bool

    @property
    def waits(self) -> bool:
        """For somebody's consent."""
        return self.proposed is not None


def overview(site: SiteFolder) -> dict[str, Any]:
    """Everything that `status` shows.

    Returns:
        The keys of state/status.json, `state` corrected by what is true now, `said` what the file says of it,
        `running`, `pid`, and the last events. `epsilon-left` is what is left of the site's privacy budget, None without
        one. `code` is the agent's, or that of the last task if this site refused it; `left-out` what the coordinator
        said of the last reply if it could not use it; `waits` the studies that wait for `fedecg-client accept`.

    Raises:
        RunError: FECG-659 if it cannot be told whose lock it is.
    """
    pid, said = running_agent(site.state), _object(site.state / "status.json")
    events = read_events(site.state)
    empty = dict.fromkeys(
        ("study", "phase", "round", "step", "steps", "eta-s", "code", "waiting-for", "updated")
    )
    return {
        **empty,
        **said,
        "site": site.settings.name,
        "state": _state(pid, said),
        "said": said.get("state"),
        "running": pid is not None,
        "pid": pid,
        "connected": bool(pid and said.get("connected")),
        "code": said.get("code") or _refused_last(events),
        "left-out": _object(site.state / LEFT_OUT) or None,
        "epsilon-left": _epsilon_left(site),
        "waits": [entry.study for entry in joined_studies(site.state) if entry.waits],
        "events": events[-LAST_EVENTS:],
    }


def _epsilon_left(site: SiteFolder) -> float | None:
    """Of today's budget; None where there is none, or where something was released and nobody wrote what it cost."""
    budget = site.settings.privacy.epsilon
    nothing_yet = 0.0 if not any(site.folder.glob("ledger.*")) else None
    spent = _object(site.state / EPSILON_SPENT).get("epsilon-spent", nothing_yet)
    if budget is None or not isinstance(spent, int | float):
        return None
    return max(budget - float(spent), 0.0)


def status_lines(document: dict[str, Any]) -> list[str]:
    """The document for people."""
    state = document["state"]
    lines = [f"state    {state}{WORDS.get(state, '')}"]
    if document["running"] and document["phase"]:
        lines.append(f"work     {_work(document)}")
    if document["code"]:
        words = document.get("waiting-for") or CODES.get(str(document["code"]), "")
        lines.append(f"code     {document['code']}" + (f" {words}" if words else ""))
    elif document["running"] and document["waiting-for"]:
        at_most = document.get("at-most-s")
        bound = f", at most {at_most:.0f} s" if isinstance(at_most, int | float) else ""
        lines.append(f"waits    for {document['waiting-for']}{bound}")
    for study in document["waits"]:
        lines.append(f"study    {study} waits for this site's consent. See: fedecg-client studies")
    told = document["left-out"]
    if told:
        place = f"{told.get('phase')} round {told.get('round')}"
        lines.append(
            f"left out {told.get('code')} {told.get('meaning')} (the last reply; the coordinator said so with {place})"
        )
    done = document.get("tasks-done")
    if done is not None:
        sent, received = (float(document.get(f"{way}-bytes") or 0) / BYTES_MB for way in ("sent", "received"))
        lines.append(f"since    start: {done} tasks, {sent:.1f} MB sent, {received:.1f} MB received")
    if document["epsilon-left"] is not None:
        lines.append(f"privacy  epsilon {document['epsilon-left']:.3f} is left. See: fedecg-client ledger")
    for event in document["events"]:
        code = f"  {event['code']}" if event.get("code") else ""
        lines.append(f"event    {event.get('time', '?')}  {event.get('event', '?')}{code}")
    return lines


WORDS = {
    "not-started": ". Next: fedecg-client preflight, then fedecg-client start",
    "killed": ": the agent ended without a word. It goes on with: fedecg-client start",
    "silent": ": the agent runs and has not written for two minutes. See: fedecg-client doctor",
    "stopped": ". It goes on with: fedecg-client start",
    "refused": ": someone must mend what the code says. See: fedecg-client doctor",
}


def read_events(state: Path) -> list[dict[str, Any]]:
    """The last events, oldest first; lines that a kill left half-written are passed over."""
    lines: list[str] = []
    for name in ("events.1.jsonl", "events.jsonl"):
        lines += _tail(state / name)
    events = []
    for line in lines:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            events.append(event)
    return events


def joined_studies(state: Path) -> list[Joined]:
    """The studies that have a lock here, or one that waits."""
    locks = state / "locks"
    names = {file.name.removesuffix(".json").removesuffix(PROPOSED) for file in locks.glob("*.json")}
    names |= {file.name.removesuffix(AGREED) for file in locks.glob(f"*{AGREED}")}
    return [_joined(state, name) for name in sorted(names)]


def _joined(state: Path, name: str) -> Joined:
    file = state / "locks" / f"{name}.json"
    lock = _lock(file)
    return Joined(
        name,
        lock,
        _lock(file.with_name(f"{name}{PROPOSED}.json")),
        agreed_sha256(state.parent, name),
        damaged=lock is None and file.exists(),
    )


def _refused_last(events: list[dict[str, Any]]) -> str | None:
    """Code under which this site refused the last task that it was given; None if it did it."""
    code, answered = None, True
    for event in events:
        if event["event"] == "task-refused":
            code, answered = event.get("code"), False
        elif event["event"] == "reply":  # the refusal itself travels as one
            code, answered = (None if answered else code), True
    return code if isinstance(code, str) else None


def _state(pid: int | None, said: dict[str, Any]) -> str:
    stated = said.get("state")
    if pid is None:
        return str(stated) if stated in ("stopped", "refused") else "killed" if stated else "not-started"
    if said.get("pid") != pid:
        return "starting"
    return "silent" if _age_s(said.get("updated")) > SILENT_S else str(stated)


def _work(document: dict[str, Any]) -> str:
    words = f"{document['study'] or 'a study'}: {document['phase']}"
    words += f", round {document['round']}" if document["round"] is not None else ""
    words += f", step {document['step']} of {document['steps']}" if document["steps"] else ""
    left = document["eta-s"]
    return words + (f", about {left:.0f} s left" if isinstance(left, int | float) else "")


def _age_s(updated: Any) -> float:
    try:
        return (datetime.now(UTC) - datetime.fromisoformat(str(updated))).total_seconds()
    except (ValueError, TypeError):
        return 0.0


def _object(file: Path) -> dict[str, Any]:
    """An object; empty if there is no such file, or none that can be read: the agent writes it anew."""
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return tree if isinstance(tree, dict) else {}


def _tail(file: Path) -> list[str]:
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - TAIL_BYTES))
            return stream.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []


def _lock(file: Path) -> StudyLock | None:
    try:
        return StudyLock.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None
