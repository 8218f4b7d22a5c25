"""What has left a site, and what waits to leave, as people read it.

In:  lines of the site's egress record. Out: lines of text. Called by `fedecg-client egress` and `approve`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["departure_lines", "held_lines"]

HEAD = ("when (UTC)", "study", "run", "what", "round", "bytes", "numbers", "arrays", "epsilon", "to")
RIGHT = {"round", "bytes", "numbers", "arrays", "epsilon"}
SHOWN = 12  # numbers of a list, where it is shown in full length elsewhere


def departure_lines(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """A table, oldest first, and below it how much it was in all."""
    rows: list[tuple[str, ...]] = []
    messages = total = damaged = 0
    for entry in entries:
        if "damaged" in entry:
            damaged += 1
        elif entry["note"]:
            rows.append((entry["at"], *[""] * (len(HEAD) - 2), entry["note"]))
        else:
            rows.append(_row(entry))
            messages, total = messages + 1, total + entry["bytes"]
    lines = _table(rows) if rows else []
    lines.append(f"{messages} messages, {total} bytes" + (f", to {_receivers(rows)}" if messages else ""))
    if damaged:
        lines.append(f"{damaged} lines cannot be read: a kill or the disk has cut them short")
    return lines


def held_lines(held: Mapping[str, Any]) -> list[str]:
    """Everything that a waiting message would tell: each number, each array."""
    lines = [
        f"study {held['study']}, {held['phase']}, round {held['round']}: {held['kind']}, {held['bytes']} bytes, "
        f"to {held['to'] or 'the coordinator'}, sha256 {held['sha256']}",
        f"lock {held['lock']}",
        "",
    ]
    values = held["values"] or {}
    width = max((len(key) for key in values), default=0)
    lines += [f"  {key:<{width}}  {_value(value)}" for key, value in values.items()]
    for array in held["arrays"]:
        shape = " x ".join(map(str, array["shape"]))
        norm = "not finite" if array["l2"] is None else f"{array['l2']:.6g}"
        size = f"{shape} {array['dtype']}, {array['bytes']} bytes, L2 norm {norm}"
        lines.append(f"  {array['name']}: {size}, sha256 {array['sha256']}")
    return lines


def _row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    what = entry["kind"] if entry["kind"] != "Failure" else f"Failure {entry['values'].get('failed', '')}"
    phase = f"{what} ({entry['phase']})" if entry["phase"] else what
    epsilon = "" if entry["epsilon"] is None else f"{entry['epsilon']:.4g}"
    numbers = sum(_count(value) for value in entry["values"].values())
    return (
        entry["at"],
        entry["study"],
        entry["run"],
        phase,
        str(entry["round"]),
        str(entry["bytes"]),
        str(numbers),
        str(len(entry["arrays"])),
        epsilon,
        entry["to"],
    )


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [
        max(len(HEAD[at]), *(len(row[at]) for row in rows)) if at < len(HEAD) - 1 else 0
        for at in range(len(HEAD))
    ]
    lines = []
    for row in (HEAD, *rows):
        cells = [
            cell.rjust(width) if name in RIGHT else cell.ljust(width)
            for name, cell, width in zip(HEAD, row, widths, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _receivers(rows: list[tuple[str, ...]]) -> str:
    named = {row[-1] for row in rows if row[5]}
    return ", ".join(sorted(named - {""})) or "the coordinator in the same process"


def _count(value: Any) -> int:
    """Numbers in a value."""
    values = value if isinstance(value, list) else [value]
    return sum(isinstance(one, int | float) for one in values)


def _value(value: Any) -> str:
    """A list with its length and sum; every number of it stands in the record and in the held file."""
    if not isinstance(value, list):
        return str(value)
    numbers = [one for one in value if isinstance(one, int | float)]
    shown = ", ".join(map(str, value[:SHOWN])) + (", ..." if len(value) > SHOWN else "")
    return f"{len(value)} values, sum {sum(numbers):g}: {shown}" if len(numbers) == len(value) else shown
