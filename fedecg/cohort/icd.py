"""ICD-9 and ICD-10 codes: how they are written down, which lists there are, and when a code belongs to one.

In:  a code as a hospital's table has it, the version it is of, and lists of entries such as "I50" or "I10-I15".
Out: whether it belongs. The lists of the package are `codes/*.toml`, each with its source.
     Called by `build_settings` (are the entries well formed?) and `build_records`.

The rule, exactly. A code is compared without dots, blanks and the marks + * ! † and in capitals: " i50.9 " is I509.
An entry without a hyphen matches every code that begins with it: "I50" matches I50 and I50.9. An entry A-B, both of the
same length n, matches every code of at least n characters whose first n are between A and B: "I10-I15" matches I10 and
I15.2, not I1 and not I16. An ICD-9 code is only ever compared with ICD-9 entries, an ICD-10 code with ICD-10 entries.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

__all__ = ["CodeList", "code_list", "code_list_names", "is_entry", "matches", "normalised", "version_of"]

FOLDER = Path(__file__).with_name("codes")
_MARKS = str.maketrans("", "", ".+*!† \t\u00a0")
_ENTRY = re.compile(r"[A-Z]?[0-9][0-9A-Z]{0,6}(\.[0-9A-Z]{1,4})?")
_VERSION = re.compile(r"(?:ICD)?[\s_-]*0?(9|10)(?:\.0)?(?:[\s_-]*[A-Z]{2,3})?")


@dataclass(frozen=True)
class CodeList:
    """A named list.

    Attributes:
        name: as `[include] lists` names it. title: as the flow says it.
        icd_9, icd_10: entries, as they stand in the file.
        source: where it is published. note: what it holds and what it leaves out.
    """

    name: str
    title: str
    icd_9: tuple[str, ...]
    icd_10: tuple[str, ...]
    source: str = ""
    note: str = ""


def normalised(code: str) -> str:
    """A code as it is compared: capitals, without dots, blanks and the marks + * ! †."""
    return code.translate(_MARKS).upper()


def is_entry(entry: str) -> bool:
    """Whether an entry is a prefix ("I50", "402.01") or a range of two of the same length ("I10-I15")."""
    written = entry.split("-")
    if len(written) > 2 or not all(_ENTRY.fullmatch(end) for end in written):
        return False
    first, last = normalised(written[0]), normalised(written[-1])
    return len(first) == len(last) and first <= last


def matches(code: str, entries: Sequence[str]) -> bool:
    """Whether a normalised code belongs to one of the entries (of its own version)."""
    return any(_matches(code, entry) for entry in entries)


def version_of(cell: str) -> int:
    """9 or 10 from a cell such as "9", "10.0", "ICD10", "icd-9-cm"; 0 where it says neither."""
    found = _VERSION.fullmatch(cell.strip().upper())
    return int(found.group(1)) if found else 0


def code_list_names() -> tuple[str, ...]:
    """The lists of the package."""
    return tuple(sorted(file.stem for file in FOLDER.glob("*.toml")))


@lru_cache
def code_list(name: str) -> CodeList:
    """A list of the package; the name is one of `code_list_names`."""
    with (FOLDER / f"{name}.toml").open("rb") as file:
        tree = tomllib.load(file)
    words = {key: " ".join(tree[key].split()) for key in ("title", "source", "note")}
    return CodeList(name=name, icd_9=tuple(tree["icd-9"]), icd_10=tuple(tree["icd-10"]), **words)


def _matches(code: str, entry: str) -> bool:
    first, _, last = (normalised(end) for end in entry.partition("-"))
    return (
        code.startswith(first)
        if not last
        else len(code) >= len(first) and first <= code[: len(first)] <= last
    )
