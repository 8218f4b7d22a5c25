"""The locks that a site has agreed to: one file a study, beside it the same in plain words.

In:  the lock of a study that the gate has let in, or one that it turned away because another is pinned.
Out: state/locks/STUDY.json and .txt; state/locks/STUDY.proposed.json and .txt, which an operator may accept;
state/locks/STUDY.agreed, the hash of a lock that was agreed to before it came.
Called by the gate, and by `fedecg-client accept`. Names of studies are checked (`StudySettings.name`) before they
become names of files.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from fedecg.errors import PolicyError
from fedecg.federation.lock import StudyLock
from fedecg.files import write_whole
from fedecg_client.folder import made_state, site_state

__all__ = ["accept", "agreed_sha256", "drop_proposed", "pin", "pinned_lock", "propose"]

PINNED, PROPOSED, AGREED = "", ".proposed", ".agreed"


def pinned_lock(folder: Path, study: str) -> StudyLock | None:
    """The lock that the site has agreed to; None before it joined.

    Raises:
        PolicyError: FECG-413 a file that cannot be read: it might have been another lock.
    """
    return _read(folder, study, PINNED)


def pin(folder: Path, lock: StudyLock) -> None:
    """Keep a lock as the one that the site has agreed to.

    Raises:
        RunError: FECG-601 if it cannot be written.
    """
    _write(folder, lock, PINNED)
    drop_proposed(folder, lock.study)
    with suppress(OSError):
        _agreed_file(folder, lock.study).unlink(missing_ok=True)


def propose(folder: Path, lock: StudyLock) -> None:
    """Keep a lock that nobody here has agreed to yet for the operator to read.

    Raises:
        RunError: FECG-601 if it cannot be written.
    """
    _write(folder, lock, PROPOSED)


def drop_proposed(folder: Path, study: str) -> None:
    """Forget a lock that waits: the coordinator is back at the pinned one, and to accept the other would end that."""
    for ending in ("json", "txt"):
        with suppress(OSError):
            _file(folder, study, PROPOSED, ending).unlink(missing_ok=True)


def accept(folder: Path, study: str, sha256: str) -> StudyLock | None:
    """Agree to the lock of this hash: the one that waits, or the one that will come.

    Returns:
        The lock; None if none has come yet: it is pinned when it does, and any other waits.

    Raises:
        PolicyError: FECG-413 if a lock of another hash waits. RunError: FECG-601.
    """
    lock = _read(folder, study, PROPOSED)
    if lock is None:
        pinned = _read(folder, study, PINNED)
        if pinned is not None and pinned.sha256() == sha256:
            return pinned
        made_state(folder)
        write_whole(_agreed_file(folder, study), f"{sha256}\n")
        return None
    if lock.sha256() != sha256:
        raise PolicyError(
            "FECG-413",
            f"lock of study {study!r:.80}",
            found=f"one of sha256 {lock.sha256()} that waits",
            expected=f"one of sha256 {sha256!r:.80}",
            fix="Compare the hash with the coordinator's: fedecg-server lock there, fedecg-client studies here.",
        )
    pin(folder, lock)
    return lock


def agreed_sha256(folder: Path, study: str) -> str | None:
    """Hash of the lock that was agreed to before it came; None where there is none."""
    try:
        return _agreed_file(folder, study).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _read(folder: Path, study: str, kind: str) -> StudyLock | None:
    file = _file(folder, study, kind, "json")
    try:
        return StudyLock.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        raise PolicyError(
            "FECG-413",
            f"lock of study {study!r:.80}",
            found=f"{file.name} that cannot be read",
            expected="the lock that the site agreed to",
            fix="Remove the file; the next lock is then agreed to anew (policy.consent).",
        ) from None


def _write(folder: Path, lock: StudyLock, kind: str) -> None:
    made_state(folder)
    write_whole(_file(folder, lock.study, kind, "txt"), "\n".join(lock.summary()) + "\n")
    write_whole(_file(folder, lock.study, kind, "json"), lock.model_dump_json(by_alias=True, indent=1) + "\n")


def _agreed_file(folder: Path, study: str) -> Path:
    return site_state(folder) / "locks" / f"{study}{AGREED}"


def _file(folder: Path, study: str, kind: str, ending: str) -> Path:
    return site_state(folder) / "locks" / f"{study}{kind}.{ending}"
