"""Is the run in the folder of the study that stands there now? Told before anything starts or is lost.

In:  the head of run/state/checkpoint.safetensors; study.toml and the installed code as they are now. Out: nothing, or
FECG-520. Called by the supervisor before it starts or changes anything, and by `fedecg-server status`. The weights are
not read, and neither numpy nor Flower is loaded: the supervisor must stay without threads. The study compares the same
again, and the code bank, too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fedecg.config import StudySettings
from fedecg.errors import RunInputError
from fedecg.federation.lock import settings_document
from fedecg.fingerprint import code_fingerprint

__all__ = ["changed_since", "check_same_study"]

STATE, DOCUMENT = "state/checkpoint.safetensors", "document"  # run_state.py has them too, but loads Flower
LARGEST_HEAD = 64_000_000


def check_same_study(run: Path, study: StudySettings) -> None:
    """Compare what an unfinished run began with to what it would go on with.

    Args:
        run: the run folder, which need not exist.
        study: as study.toml states it now.

    Raises:
        RunError: FECG-520 with what differs, if the run could not go on.
    """
    changed = changed_since(run, study)
    if not changed:
        return
    raise RunInputError(
        "FECG-520",
        "unfinished run",
        found=changed,
        expected="the same",
        fix="Nothing was started and nothing is lost. Restore study.toml (run/study.toml is how it began) and the "
        "installed version, or begin a new run: fedecg-server start --new.",
    )


def changed_since(run: Path, study: StudySettings) -> str:
    """In words, what is not as it was when an unfinished run began; empty where nothing is, or nothing was begun.

    Args:
        run: the run folder, which need not exist.
        study: as study.toml states it now.
    """
    began = _lock_of(run / STATE)
    if began is None:
        return ""
    keys = _changed_keys(began.get("settings"), settings_document(study))
    changed = [f"settings in study.toml ({', '.join(keys)})"] if keys else []
    if began.get("code-fingerprint") != code_fingerprint():
        changed.append("version of fedecg installed")
    return f"other {' and another '.join(changed)} than it began with" if changed else ""


def _lock_of(file: Path) -> dict[str, Any] | None:
    """The lock in a checkpoint's head; None where there is none that can be read: the study says what is wrong."""
    try:
        with file.open("rb") as content:
            size = int.from_bytes(content.read(8), "little")
            head = json.loads(content.read(size)) if size <= LARGEST_HEAD else {}
        lock = json.loads(head["__metadata__"][DOCUMENT])["lock"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return lock if isinstance(lock, dict) else None


def _changed_keys(before: Any, after: Any, path: str = "") -> list[str]:
    """Names of the settings that differ, as study.toml has them."""
    if isinstance(before, dict) and isinstance(after, dict):
        names = sorted({*before, *after})
        return [
            key
            for name in names
            for key in _changed_keys(before.get(name), after.get(name), f"{path}.{name}" if path else name)
        ]
    return [] if before == after else [path]
