"""What each command of `fedecg-server` does.

In:  parsed options. Out: text or one JSON document on stdout, an exit status. Called by `fedecg_server.cli`.
What loads Flower, torch or matplotlib is loaded when its command runs.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from fedecg.errors import RunError, RunInputError, SettingsError
from fedecg.federation.few_sites import refuse_few_sites
from fedecg_server.certificates import ca_fingerprint, check_tls, renew_server_certificate, tls_state
from fedecg_server.coordinator import Coordinator, create_coordinator, open_coordinator

__all__ = [
    "backup",
    "dashboard",
    "init",
    "lock",
    "renew",
    "report",
    "resume",
    "site_add",
    "site_list",
    "site_remove",
    "start",
    "status",
    "stop",
]

Options = argparse.Namespace


def init(options: Options) -> int:
    """Make a coordinator's folder."""
    coordinator = create_coordinator(options.dir, options.name, options.port)
    settings = coordinator.settings
    if options.json:
        made = {"folder": str(options.dir), "name": settings.name, "port": settings.port}
        return _print_json(made | {"ca-fingerprint": ca_fingerprint(coordinator.tls.ca)})
    print(f"made {options.dir}: sites will reach it as {settings.name}:{settings.port}")
    print(f"ca.crt  {ca_fingerprint(coordinator.tls.ca)}")
    print(
        f"Next: edit {options.dir}/study.toml. Give {options.dir}/tls/ca.crt to every site and read its fingerprint,\n"
        f"the line above, to them over the phone. Then, for every site: fedecg-server site add NAME --key node.pub"
    )
    return 0


def renew(options: Options) -> int:
    """Sign a new server certificate."""
    coordinator = open_coordinator(options.dir)
    renew_server_certificate(coordinator.tls, coordinator.settings.name, new_key=options.new_key)
    state = tls_state(coordinator.tls)
    if options.json:
        until = {"expires": f"{state.expires:%Y-%m-%d}", "days-left": state.days_left}
        return _print_json({"names": state.names, **until, "warnings": state.warnings})
    print(
        f"new certificate for {', '.join(state.names)}, until {state.expires:%Y-%m-%d} ({state.days_left} days)"
    )
    print("ca.crt is the same: sites change nothing.")
    _say_warnings(state.warnings)
    from fedecg_server.server_lock import running_pid

    if running_pid(coordinator) is not None:
        print(
            "The running coordinator still shows the old one: fedecg-server stop, then fedecg-server resume."
        )
    return 0


def backup(options: Options) -> int:
    """Save everything that must not be lost."""
    from fedecg_server.backup import back_up

    saved = back_up(open_coordinator(options.dir), options.out)
    if options.json:
        document = {"files": saved.files, "bytes": saved.size, "not-saved": saved.not_saved}
        print(json.dumps(document | {"database": saved.has_database}, indent=2))
        return 0
    for name in saved.files:
        print(f"  {name}")
    print(
        f"saved {len(saved.files)} files, {saved.size / 1e6:.1f} MB, in {options.out}; it holds private keys"
    )
    if saved.not_saved:
        print(f"not saved, and not needed: {', '.join(saved.not_saved)}")
    if not saved.has_database:
        print("there is no database yet: it comes with the first start")
    return 0


def site_add(options: Options) -> int:
    """Let a site take part."""
    from fedecg_server.sites import add_site

    change = add_site(open_coordinator(options.dir), options.name, options.key)
    if options.json:
        return _print_json(_site(options.name, change.entry) | {"live": change.live})
    print(f"{options.name}  {change.entry.fingerprint}")
    print(
        "Compare this fingerprint with the one that `fedecg-client init` printed at the site: over the phone."
    )
    print("It may connect now." if change.live else "It may connect as soon as the coordinator is started.")
    return 0


def site_remove(options: Options) -> int:
    """Let a site take part no more."""
    from fedecg_server.sites import remove_site

    coordinator = open_coordinator(options.dir)
    _ask(
        f"Remove {options.name}? Its key does not come back: to return, the site makes a new one (renew-key).",
        options.yes,
    )
    change = remove_site(coordinator, options.name)
    if options.json:
        return _print_json(_site(options.name, change.entry) | {"live": change.live})
    print(f"removed {options.name}" + (": its messages are refused from now on" if change.live else ""))
    return 0


def site_list(options: Options) -> int:
    """Show who may take part."""
    from rich.console import Console
    from rich.table import Table

    from fedecg_server.sites import read_sites

    sites = read_sites(open_coordinator(options.dir)).sites
    if options.json:
        return _print_json({"sites": [_site(name, entry) for name, entry in sites.items()]})
    if not sites:
        print("no site yet. Next: fedecg-server site add NAME --key node.pub")
        return 0
    table = Table("site", "key", "node id", box=None, pad_edge=False)
    for name, entry in sites.items():
        table.add_row(name, entry.fingerprint, entry.node_id or "at the next start")
    Console(soft_wrap=True).print(table)
    return 0


def lock(options: Options) -> int:
    """Show what the sites are asked to agree to."""
    from fedecg_server.lock import study_lock
    from fedecg_server.sites import read_sites

    coordinator = open_coordinator(options.dir)
    sites = read_sites(coordinator).sites
    agreed = study_lock(
        coordinator.study(), sites, {name: entry.fingerprint for name, entry in sites.items()}
    )
    summary = agreed.summary(no_sites="none yet: fedecg-server site add NAME --key node.pub")
    of_run = _lock_of_unfinished_run(coordinator)
    if options.json:
        document = {"sha256": agreed.sha256(), "summary": summary, "unfinished-run": of_run}
        return _print_json(document | {"lock": agreed.model_dump(by_alias=True)})
    print(agreed.sha256() if options.sha256 else "\n".join(summary))
    if not agreed.sites:
        print("There is no site in the list yet: every site that is added changes the hash.", file=sys.stderr)
    if of_run not in (None, agreed.sha256()):
        _say_warnings(
            [
                f"the unfinished run has another lock, {of_run}: study.toml, the list of sites or fedecg was changed "
                "since. The hash above is that of the next run: fedecg-server start --new."
            ]
        )
    return 0


def _lock_of_unfinished_run(coordinator: Coordinator) -> str | None:
    """Its hash, as the sites have agreed to it; None where no run is unfinished."""
    from fedecg_server.run_view import Status, read_document

    status = read_document(Status, coordinator.run / "status.json")
    finished = (coordinator.run / "result.json").exists()
    return None if status is None or finished else status.lock or None


def start(options: Options) -> int:
    """Begin the study, or go on with it."""
    from fedecg_server.backup import check_not_restored

    coordinator = open_coordinator(options.dir)
    check_not_restored(coordinator, options.restored)
    return _serve(coordinator, resume=False, new=options.new)


def resume(options: Options) -> int:
    """Go on with the study."""
    from fedecg_server.backup import check_not_restored

    coordinator = open_coordinator(options.dir)
    check_not_restored(coordinator, False)
    return _serve(coordinator, resume=True, new=False)


def stop(options: Options) -> int:
    """Stop a running coordinator."""
    from fedecg_server import supervisor

    return supervisor.stop(open_coordinator(options.dir), options.timeout)


def status(options: Options) -> int:
    """Show where the study stands."""
    from rich.console import Console

    from fedecg_server.overview import overview, print_overview

    document = overview(open_coordinator(options.dir))
    if options.json:
        return _print_json(document)
    print_overview(document, Console())
    return 0


def dashboard(options: Options) -> int:
    """Show the web page of the study until Ctrl-C."""
    from fedecg_server.dashboard import serve_dashboard

    return serve_dashboard(open_coordinator(options.dir), options.port, lambda line: print(line, flush=True))


def report(options: Options) -> int:
    """Write the report of the finished study, as `fedecg report` does."""
    coordinator = open_coordinator(options.dir)
    if not (coordinator.run / "result.json").exists():
        raise RunInputError(
            "FECG-602",
            "report",
            found="a study that has not ended"
            if any(coordinator.run.glob("*"))
            else "a study that has not begun",
            expected="one that is finished",
            fix="Where it stands, and what is next: fedecg-server status.",
        )
    words = ["report", str(coordinator.run)]
    words += ["--out", str(options.out)] if options.out else []
    words += ["--outcomes", options.outcomes] if options.outcomes else []
    from fedecg.cli import main as fedecg

    return fedecg([*words, "--json"] if options.json else words)


def _serve(coordinator: Coordinator, *, resume: bool, new: bool) -> int:
    """What must be right before anything runs is looked at here, so that it is said at once and in one place."""
    from fedecg_server.sites import read_sites

    check_tls(coordinator.tls, coordinator.settings.name)
    study = coordinator.study()
    sites = read_sites(coordinator).sites
    if len(sites) < study.federation.quorum:
        raise SettingsError(
            "FECG-107",
            "sites.json",
            found=f"{len(sites)} site(s)",
            expected=f"at least the quorum of {study.federation.quorum}",
            fix="fedecg-server site add NAME --key node.pub, or lower federation.quorum in study.toml.",
        )
    forced = (
        "" if resume else refuse_few_sites(study, len(sites))
    )  # a run goes on with the sites of its own lock
    _say_warnings([*tls_state(coordinator.tls).warnings, *([forced] if forced else [])])
    from fedecg_server import supervisor

    return supervisor.start(coordinator, resume, new)


def _ask(question: str, yes: bool) -> None:
    """Go on only with consent: `--yes`, or a `y` typed at a terminal.

    Raises:
        RunError: FECG-679 without.
    """
    if yes:
        return
    found = "no terminal to ask at"
    if sys.stdin.isatty():
        print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return
        found = "an answer other than y"
    raise RunError("FECG-679", "consent", found=found, expected="y, or --yes", fix="Nothing was changed.")


def _site(name: str, entry: Any) -> dict[str, Any]:
    return {"name": name, "fingerprint": entry.fingerprint, "node-id": entry.node_id}


def _print_json(document: dict[str, Any]) -> int:
    print(json.dumps(document, indent=2))
    return 0


def _say_warnings(warnings: list[str]) -> None:
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
