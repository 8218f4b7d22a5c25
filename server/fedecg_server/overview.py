"""What the coordinator can say of itself: the study, the sites, the certificate, in one document and one table.

In:  the coordinator's folder. Out: a document for `status --json`, a table for people. Called by `fedecg-server
status`. Reads files only, so that it works beside a running study, after it, and after a crash.
"""

from __future__ import annotations

from datetime import UTC
from typing import Any

from rich.console import Console
from rich.table import Table

from fedecg.errors import SettingsError
from fedecg_server.certificates import tls_state
from fedecg_server.coordinator import Coordinator
from fedecg_server.outcome import c_index_words
from fedecg_server.run_view import Failure, Status, read_document
from fedecg_server.server_lock import running_pid
from fedecg_server.sites import read_sites
from fedecg_server.unfinished import changed_since
from fedecg_server.verdict import final_words
from fedecg_server.waits import present_wait, wait_keys

__all__ = ["overview", "print_overview"]

FINISHED = ("completed", "completed-partial")
RUNNING, WAITING = "running", "waiting"
NOT_SEEN = {"state": "not-seen", "last-round": None, "code": None, "seconds": None}


def overview(coordinator: Coordinator) -> dict[str, Any]:
    """Everything that `status` shows.

    Returns:
        The keys of run/status.json, `state` corrected by what stands in the folder, and `running`, `message`,
        `sites` (those of the list, then any other), `warnings`, `certificate`, and `result`: of a finished study its
        C-index in words, or why there is none. Where the supervisor itself waits, for the SuperLink, say, its wait
        stands in `waiting-for`: whatever the study waits for comes after it.

    Raises:
        RunError: FECG-602, FECG-672, FECG-673 for a damaged file.
    """
    pid = running_pid(coordinator)
    written = read_document(Status, coordinator.run / "status.json")
    status = written.present(pid is not None).model_dump(mode="json", by_alias=True) if written else {}
    failed = read_document(Failure, coordinator.run / "failed.json")
    wait = None if pid is None else present_wait(coordinator)
    state = _state(coordinator, pid is not None, status, failed is not None)
    return {
        "study": None,
        "code": None,
        "phase": None,
        "round": None,
        "rounds": None,
        "waiting-for": [],
        "c-index": None,
        **status,
        "result": final_words(coordinator) or None,
        **(wait_keys(wait) if wait else {}),
        **({"code": failed.code} if failed else {}),
        "state": WAITING if wait and state == RUNNING else state,
        "running": pid is not None,
        "message": failed.message if failed else None,
        "sites": _sites(coordinator, status),
        "warnings": _warnings(coordinator, state),
        "certificate": _certificate(coordinator),
    }


def print_overview(document: dict[str, Any], console: Console) -> None:
    """The document for people."""
    lines = [f"state    {_state_words(document)}"]
    if document["waiting-for"]:
        label = "at work" if document["state"] == RUNNING else "waiting"
        lines.append(f"{label}  {_waiting_words(document)}")
    if document["c-index"] or document["result"]:
        lines.append(f"C-index  {_c_index_words(document)}")
    certificate = document["certificate"]
    lines.append(
        f"server   {', '.join(certificate['names'])}; certificate until {certificate['expires'][:10]}"
    )
    lines.append(f"ca.crt   {certificate['fingerprint']}")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    for warning in (*document["warnings"], *certificate["warnings"]):
        console.print(f"mend     {warning}", highlight=False, markup=False, soft_wrap=True)
    console.print(_sites_table(document["sites"]))


def _sites_table(sites: list[dict[str, Any]]) -> Table:
    table = Table("site", "state", "last round", "seconds", "code", "key", box=None, pad_edge=False)
    for site in sites:
        seconds = site["seconds"]
        table.add_row(
            site["name"],
            site["state"],
            "-" if site["last-round"] is None else str(site["last-round"]),
            "-" if seconds is None else f"{seconds:.0f}",
            site["code"] or "-",
            "registered"
            if site["registered"]
            else "at the next start"
            if site["listed"]
            else "not in the list",
        )
    return table


def _state(coordinator: Coordinator, running: bool, status: dict[str, Any], failed: bool) -> str:
    stated = status.get("state")
    if (coordinator.run / "result.json").exists():
        return str(stated) if stated in FINISHED else FINISHED[0]
    if failed:
        return "failed"
    if running:
        return str(stated) if stated else "starting"
    return "stopped" if status or (coordinator.run / "study.toml").exists() else "not-started"


def _sites(coordinator: Coordinator, status: dict[str, Any]) -> list[dict[str, Any]]:
    """Those of the list, then removed ones."""
    listed = read_sites(coordinator).sites
    seen = {site["name"]: site for site in status.get("sites", [])}
    return [
        {
            **NOT_SEEN,
            **seen.get(name, {"name": name}),
            "listed": name in listed,
            "registered": name in listed and listed[name].node_id is not None,
            "fingerprint": listed[name].fingerprint if name in listed else None,
        }
        for name in [*listed, *(name for name in seen if name not in listed)]
    ]


def _warnings(coordinator: Coordinator, state: str) -> list[str]:
    """What keeps a run that is not over from being resumed."""
    try:
        changed = "" if state in FINISHED else changed_since(coordinator.run, coordinator.study())
    except SettingsError as error:
        return [str(error)]
    if not changed:
        return []
    return [f"the run has {changed}: it cannot be resumed so (FECG-520). run/study.toml is how it began"]


def _certificate(coordinator: Coordinator) -> dict[str, Any]:
    state = tls_state(coordinator.tls)
    return {
        "names": state.names,
        "expires": state.expires.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "days-left": state.days_left,
        "authority-expires": state.authority_expires.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "fingerprint": state.fingerprint,
        "warnings": state.warnings,
    }


def _state_words(document: dict[str, Any]) -> str:
    words = str(document["state"])
    if document["phase"] and document["state"] not in ("not-started", *FINISHED):
        words += f", phase {document['phase']}"
        words += f", round {document['round']} of {document['rounds']}" if document["rounds"] else ""
    if document["running"] and document.get("eta-s"):
        words += f", about {document['eta-s'] / 60:.0f} min left"
    if document["message"]:
        words += f": {document['message'].rstrip('.')}"
    return words + NEXT.get(document["state"], "")


NEXT = {
    "not-started": ". Next: fedecg-server lock, then fedecg-server start",
    "stopped": ". It goes on with: fedecg-server start",
    "failed": ". Once its cause is mended: fedecg-server resume",
    "completed": ". Next: fedecg-server report",
    "completed-partial": ", without some sites. Next: fedecg-server report",
}


def _waiting_words(document: dict[str, Any]) -> str:
    words = ", ".join(document["waiting-for"])
    if document.get("at-most-s") is None:
        return words
    return f"{words}: {document.get('waited-s') or 0:.0f} s of at most {document['at-most-s']:.0f} s"


def _c_index_words(document: dict[str, Any]) -> str:
    """Of a finished study the final one, or why there is none."""
    if document["result"]:
        return str(document["result"])
    entry = document["c-index"]
    return "not to be had yet" if entry.get("stratified") is None else c_index_words(entry)
