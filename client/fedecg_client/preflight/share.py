"""The report that may leave the site: which checks hold, and counts large enough to tell nothing of anybody.

In:  the checks. Out: a document without small counts, paths, addresses, names of studies, keys or dates of patients;
the site's own name is the only name. Called by `fedecg-client preflight --share`, which shows it before it writes it.

Guarantees (tests/deployment/preflight/test_preflight_share.py):
    - no text of a check is copied: names, codes, yes and no only, so that no path or host can slip in
    - a number of patients, of those with and of those without an event, below the thresholds is never stated, and
      neither is one from which it could be worked out: then a part's events, or all parts, are left out
    - a quantile of follow-up is stated in steps of 0.1 years, and only with 10 patients on either side of it
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedecg_client.preflight.check import Check

__all__ = ["LEAST_EVENTS", "LEAST_PATIENTS", "shared_report"]

LEAST_PATIENTS, LEAST_EVENTS = 10, 5
DAYS_A_YEAR = 365.25
GIB = 1 << 30
WITHHELD = "too few to tell"
STATES = {True: "ok", None: "not tried"}
VERSIONS = ("fedecg", "flwr", "torch", "python")


def shared_report(site: str, checked: str, checks: Sequence[Check]) -> dict[str, Any]:
    """The document.

    Args:
        site: its name.
        checked: when, ISO 8601.
        checks: of preflight.
    """
    by_name = {check.name: check for check in checks}
    return {
        "site": site,
        "checked": checked,
        "checks": {check.name: STATES[check.ok] if check.ok is not False else check.code for check in checks},
        "versions": _versions(by_name.get("versions")),
        "machine": _machine(by_name),
        "cohort": _cohort(by_name.get("cohort")),
        "store": _store(by_name.get("store")),
        "thresholds": {"patients": LEAST_PATIENTS, "events": LEAST_EVENTS},
    }


def _versions(check: Check | None) -> dict[str, Any]:
    return {name: check.details.get(name) for name in VERSIONS} if check else {}


def _machine(checks: dict[str, Check]) -> dict[str, Any]:
    memory, gpu = checks.get("memory"), checks.get("gpu")
    free = memory.details.get("available_bytes") if memory else None
    return {
        "memory-gib": None if free is None else round(free / GIB),
        "gpu": bool(gpu and gpu.details.get("count")),
    }


def _cohort(check: Check | None) -> dict[str, Any] | str | None:
    """Parts if all of them can be told, else all patients together, else that there are too few."""
    if check is None or "parts" not in check.details:
        return None
    parts: dict[str, dict[str, Any]] = check.details["parts"]
    if all(_enough(counts, known=part != "align") for part, counts in parts.items()):
        return {part: _told(counts) for part, counts in parts.items()}
    whole = {key: sum(counts[key] for counts in parts.values()) for key in ("patients", "events")}
    return {"all": _told({**whole, "follow-up-days": {}})} if _enough(whole) else WITHHELD


def _enough(counts: dict[str, Any], *, known: bool = True) -> bool:
    """Patients, those with an event and those without; where no outcome is known, patients alone."""
    patients, events = int(counts["patients"]), int(counts["events"])
    if not known:
        return patients >= LEAST_PATIENTS
    return patients >= LEAST_PATIENTS and LEAST_EVENTS <= events <= patients - LEAST_EVENTS


def _told(counts: dict[str, Any]) -> dict[str, Any]:
    days = counts["follow-up-days"]
    years = {
        quantile: round(value / DAYS_A_YEAR, 1)
        for quantile, value in days.items()
        if counts["patients"] * min(float(quantile), 1 - float(quantile)) >= LEAST_PATIENTS
    }
    return {"patients": counts["patients"], "events": counts["events"], "follow-up-years": years}


def _store(check: Check | None) -> dict[str, Any] | None:
    """ECGs, and how many were refused, if both are many."""
    if check is None or "ecgs" not in check.details:
        return None
    ecgs, usable = check.details["ecgs"], check.details["usable"]
    refused = ecgs - usable
    told = ecgs >= LEAST_PATIENTS and usable >= LEAST_PATIENTS
    return {
        "ecgs": ecgs if told else WITHHELD,
        "refused": refused if told and refused >= LEAST_PATIENTS else WITHHELD,
        "samples": check.details["samples"],
    }
