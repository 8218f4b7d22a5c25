"""Preflight's report as people read it, and as it stays at the site.

In:  the checks. Out: lines, a document. Called by `fedecg-client` preflight, doctor and start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedecg_client.preflight.check import Check, wrong

__all__ = ["document", "lines"]

MARKS = {True: "ok  ", False: "MEND", None: "-   "}


def lines(checks: Sequence[Check]) -> list[str]:
    """One line a check, and the fix below what does not hold."""
    width = max((len(check.name) for check in checks), default=0)
    told = []
    for check in checks:
        code = f"{check.code} " if check.code else ""
        told += _lines(f"{MARKS[check.ok]}  {check.name:<{width}}  ", f"{code}{check.found}")
        if check.ok is False and check.fix:
            told += _lines(f"      {'':<{width}}  ", f"-> {check.fix}")
    return told


def _lines(begin: str, text: str) -> list[str]:
    """A text of one or more lines, the later ones below the first: none can pass for a check of its own."""
    first, *rest = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    return [printable(begin + first), *(printable(" " * len(begin) + line) for line in rest)]


def document(site: str, checked: str, checks: Sequence[Check]) -> dict[str, Any]:
    """All of it; stays at the site."""
    return {
        "site": site,
        "checked": checked,
        "ok": not wrong(checks),
        "checks": [
            {
                "name": check.name,
                "ok": check.ok,
                "code": check.code,
                "fix": check.fix,
                "found": check.found,
                "details": {key.replace("_", "-"): value for key, value in check.details.items()},
            }
            for check in checks
        ],
    }


def printable(text: str) -> str:
    """One line, with nothing that a terminal would take as a command: names in a certificate are a stranger's text."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.splitlines()))
