"""The one door through which messages leave a site: looked at where the site wants that, and recorded first.

In:  a reply or a failure as it will travel, the task that it answers. Out: nothing, or an error that keeps it here; on
     disk a line in state/egress/egress.jsonl, and held-STUDY.json while a message waits for `fedecg-client approve`.
Called by the ClientApp for every message, whichever of Flower's processes runs it.

With `privacy.approve = "first-round"` two messages of a study's lock are held until somebody at the site has looked at
them: the one with which it would join (its counts), and the first one with sums or an update. What is approved is that
messages of this kind leave for this lock, not the bytes: a round may have gone by meanwhile.

The one message that can leave unrecorded is a code by itself, FECG-448 or one that the agent sends without the app
(`bare_codes`): a disk that is full must not keep the coordinator from learning that the site cannot take part.
"""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from flwr.app import ArrayRecord, RecordDict

from fedecg.config import Section, SiteSettings
from fedecg.errors import PolicyError
from fedecg.federation.messages import document_of, reply_sha256, size_bytes
from fedecg.federation.tasks import JoinTask, Task
from fedecg.files import write_whole
from fedecg.privacy.book import exists_in
from fedecg.privacy.egress import ArrayEntry, Departure, EgressRecord, array_entry, flattened
from fedecg.privacy.ledger import open_ledger
from fedecg_client.folder import made_state, site_state
from fedecg_client.workplace import phase_of

__all__ = ["approve", "egress_record", "held_message", "leave", "leave_failed", "note"]

ANY = "*"
APPROVED = "approved.json"
Look = Literal["join", "first-round"]


def leave(folder: Path, site: SiteSettings, task: Section, run: str, content: RecordDict) -> None:
    """Record a reply, so that it may leave.

    Args:
        folder: of the site.
        site: its settings.
        task: that is answered.
        run: Flower's number of it, where the task does not name its run.
        content: of the reply.

    Raises:
        PolicyError: FECG-448 it cannot be recorded; FECG-449 it waits for a look; FECG-450 what was approved cannot be
            read; FECG-431..433 the ledger cannot be read.
    """
    looked_at = site.privacy.approve == "first-round"
    if not (_records(site) or looked_at):
        return
    departure = _departure(folder, site, task, run, content)
    if looked_at:
        _hold_until_approved(folder, task, departure)
    if _records(site):
        egress_record(folder).append(departure)


def leave_failed(
    folder: Path, site: SiteSettings, task: Section | None, run: str, content: RecordDict
) -> None:
    """Record a failure, which needs neither a look nor the ledger: it says a name and a code.

    Raises:
        PolicyError: FECG-448.
    """
    if _records(site):
        egress_record(folder).append(_departure(folder, site, task, run, content, failed=True))


def note(folder: Path, words: str) -> None:
    """A line of the site itself between what has left.

    Raises:
        PolicyError: FECG-448. RunError: FECG-601.
    """
    egress_record(folder).append(Departure(at=_now(), note=words))


def egress_record(folder: Path) -> EgressRecord:
    """The record of a site's folder."""
    return EgressRecord(site_state(folder) / "egress")


def held_message(folder: Path, study: str) -> dict[str, Any] | None:
    """What waits for a look: the line that would be recorded, with `look` and `lock`; None if nothing does.

    Raises:
        PolicyError: FECG-450 it cannot be read.
    """
    return _read(_held_file(folder, study))


def approve(folder: Path, study: str, held: dict[str, Any]) -> None:
    """Let messages of this kind leave for this lock.

    Raises:
        PolicyError: FECG-450. RunError: FECG-601.
    """
    file = site_state(folder) / "egress" / APPROVED
    approved = _read(file) or {}
    looks = {*approved.get(held["lock"], []), held["look"]}
    write_whole(file, json.dumps({**approved, held["lock"]: sorted(looks)}, indent=1) + "\n", private=True)
    with suppress(OSError):
        _held_file(folder, study).unlink(missing_ok=True)


def _records(site: SiteSettings) -> bool:
    """Always, but for the virtual sites of a simulation."""
    return site.server is not None or ANY not in site.policy.studies


def _departure(
    folder: Path,
    site: SiteSettings,
    task: Section | None,
    run: str,
    content: RecordDict,
    failed: bool = False,
) -> Departure:
    study, phase, number = _purpose(task)
    kind = "Failure" if failed else type(task).__name__.removesuffix("Task") + "Reply"
    return Departure(
        at=_now(),
        to=site.server.address if site.server else "",
        study=study,
        run=str(getattr(task, "run", "")) or run,
        phase=phase,
        round=number,
        kind=kind,
        bytes=size_bytes(content),
        sha256=reply_sha256(content),
        arrays=tuple(_arrays(content)),
        values=flattened(document_of(content)),
        epsilon=None if failed else _epsilon(folder, site),
    )


def _arrays(content: RecordDict) -> list[ArrayEntry]:
    return [
        array_entry(f"{name}/{key}", np.asarray(array.numpy()), array.data)
        for name, record in content.items()
        if isinstance(record, ArrayRecord)
        for key, array in record.items()
    ]


def _epsilon(folder: Path, site: SiteSettings) -> float | None:
    """Most that any patient in the ledger has spent, with this message: the ledger is written before a release."""
    if site.privacy.delta is None or not exists_in(folder):
        return None
    with open_ledger(folder) as ledger:
        return ledger.epsilon({"train": ledger.patients}, site.privacy.delta)


def _purpose(task: Section | None) -> tuple[str, str, int]:
    """Study, phase and round of what is answered; a message that could not be read has none."""
    if isinstance(task, JoinTask):
        return task.lock.study, "join", 0
    if isinstance(task, Task):
        return str(task.settings.get("name", "")), phase_of(task), task.round
    return "", "", 0


def _hold_until_approved(folder: Path, task: Section, departure: Departure) -> None:
    look: Look = "join" if isinstance(task, JoinTask) else "first-round"
    lock = task.lock.sha256() if isinstance(task, JoinTask) else getattr(task, "lock_sha256", "")
    approved = _read(site_state(folder) / "egress" / APPROVED) or {}
    if look in approved.get(lock, []):
        return
    made_state(folder)
    held = {**departure.document(), "look": look, "lock": lock}
    write_whole(_held_file(folder, departure.study), json.dumps(held, indent=1) + "\n", private=True)
    raise PolicyError(
        "FECG-449",
        f"first message of study {departure.study} ({look})",
        found="one that nobody at the site has looked at",
        expected='a look before it leaves (privacy.approve = "first-round")',
        fix=f"Run `fedecg-client approve {departure.study}`: it shows what would leave; the coordinator asks again.",
    )


def _held_file(folder: Path, study: str) -> Path:
    return site_state(folder) / "egress" / f"held-{study}.json"


def _read(file: Path) -> dict[str, Any] | None:
    """A document; None where there is none."""
    try:
        document = json.loads(file.read_bytes())
        if isinstance(document, dict):
            return document
        found = "another document"
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        found = type(error).__name__
    raise PolicyError(
        "FECG-450",
        f"{file.name} in state/egress",
        found=found,
        expected="a file as fedecg wrote it",
        fix="Remove it: the next first message of a study is then held again.",
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
