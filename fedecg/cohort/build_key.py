"""The key by which a hospital's own numbers become the numbers of its cohort tables.

In:  the file that `[patients] key` names, or patients.key in --out. Out: the key, made once, for its owner alone (mode
     0600). Called by `build_output`.
Whoever has the key and the hospital's numbers can tell who is who in the tables: so it may lie elsewhere than they do.
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from fedecg.errors import CohortError
from fedecg.files import in_words, read_regular, write_whole

__all__ = ["KEY", "key_of", "numbers_of"]

KEY, KEY_BYTES = "patients.key", 32
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def key_of(named: str, folder: Path) -> bytes:
    """The key; made where there is none.

    Args:
        named: file of the settings; "" = patients.key in the folder.
        folder: of the tables. A key that an earlier build left there must not be passed over: everybody would get
            another number.

    Raises:
        CohortError: FECG-286 what is there is no key, others may read it, or another one lies in the folder.
        RunError: FECG-601 it cannot be written.
    """
    beside = folder / KEY
    file = Path(named) if named else beside
    if named and _is_there(beside) and not _is_same(file, beside):
        raise CohortError(
            "FECG-286",
            f"{KEY} in --out",
            found="the key of an earlier build, and another file, or none, where [patients] key says",
            expected="one key: under another one everybody gets another number, and the privacy ledger knows nobody "
            "again",
            fix="Move it to where [patients] key says, or remove that line.",
        )
    if not _is_there(file):
        write_whole(file, secrets.token_bytes(KEY_BYTES), private=True)
    return _read(file)


def numbers_of(names: Iterable[str], key: bytes) -> NDArray[np.int64]:
    """(n,) a number of 63 bits for each name; two patients share one with a chance below n^2 / 2^64."""
    digests = [hmac.digest(key, name.encode(), "sha256") for name in names]
    return np.array([int.from_bytes(digest[:8], "big") >> 1 for digest in digests], dtype=np.int64)


def _is_there(file: Path) -> bool:
    """Whether anything is there, a link that leads nowhere included: what cannot be looked at is refused when read."""
    return os.path.lexists(file)


def _is_same(file: Path, other: Path) -> bool:
    try:
        return file.samefile(other)
    except OSError:
        return False


def _read(file: Path) -> bytes:
    try:
        key = read_regular(file)
        mode = file.stat().st_mode
    except (OSError, ValueError) as error:
        _refuse(in_words(error))
    if len(key) != KEY_BYTES:
        _refuse(f"{len(key)} bytes")
    if os.name == "posix" and mode & OTHERS:
        raise CohortError(
            "FECG-286",
            f"{KEY}, the key of the patients' numbers",
            found=f"a file that others than its owner may use (mode {stat.S_IMODE(mode):04o})",
            expected="mode 0600",
            fix="chmod 600 it. Whoever may have read it can tell who is who in the tables.",
        )
    return key


def _refuse(found: str) -> NoReturn:
    raise CohortError(
        "FECG-286",
        f"{KEY}, the key of the patients' numbers",
        found=found,
        expected=f"the {KEY_BYTES} bytes that the first build wrote",
        fix="Restore it from a backup: under another key everybody gets another number, and the privacy ledger knows "
        "nobody again.",
    )
