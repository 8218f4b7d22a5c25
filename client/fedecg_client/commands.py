"""What each command of `fedecg-client` does.

In:  parsed options. Out: text or one JSON document on stdout, an exit status. Called by `fedecg_client.cli`.
What loads Flower, torch or gRPC is loaded when its command runs.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedecg.errors import FedecgError, RunError, SettingsError

__all__ = [
    "accept", "doctor", "init", "key", "ledger", "not_a_folder", "preflight", "renew_key", "start", "status", "stop",
    "studies",
]  # fmt: skip

Options = argparse.Namespace


def init(options: Options) -> int:
    """Make a site's folder."""
    from fedecg.federation.identity import certificate_fingerprint, public_key_of
    from fedecg_client.folder import create_site
    from fedecg_client.keys import authority_of, load_key, public_file

    site = create_site(
        options.dir, options.name, options.server, options.ca, options.cohort, options.store, options.study
    )
    own, authority = public_key_of(load_key(site.key)), certificate_fingerprint(authority_of(site.ca))
    if options.json:
        made = {"folder": str(options.dir), "site": options.name, "public-key": str(public_file(site.key))}
        return _print_json(made | {"key-fingerprint": own.fingerprint, "ca-fingerprint": authority})
    print(f"made {options.dir} for site {options.name}")
    print(f"node.pub  {own.fingerprint}")
    print(f"ca.crt    {authority}")
    print(
        f"Next: send {public_file(site.key)} to the coordinator, and nothing else of this folder.\n"
        "Over the phone: read the first fingerprint to the coordinator, who compares it with what `fedecg-server site\n"
        f"add` prints; have the second read to you. Then look through {options.dir}/site.toml and run:\n"
        f"  fedecg-client preflight {options.dir}"
    )
    if not options.study:
        print("[policy] studies of site.toml is empty: this site takes part in nothing yet.")
    return 0


def preflight(options: Options) -> int:
    """Check everything, keep the full report here, show the other before it is written."""
    from fedecg_client.preflight import exit_status_of, run_preflight, wrong
    from fedecg_client.preflight.report import document, lines
    from fedecg_client.preflight.share import shared_report

    checks, checked, site = run_preflight(options.dir), _now(), _site_name(options.dir)
    report = document(site, checked, checks)
    _keep(options.dir / "state" / "preflight.json", report)
    shared = shared_report(site, checked, checks) if options.share else None
    if options.json:
        _print_json(report if shared is None else {**report, "shared": shared})
    else:
        print("\n".join(lines(checks)))
        skipped = sum(check.ok is None for check in checks)
        print(
            f"{len(checks) - len(wrong(checks)) - skipped} hold, {len(wrong(checks))} to mend, {skipped} not tried"
        )
        if shared is not None:
            print(
                f"\nThis is all that {options.share} will hold. Nothing is sent:\n{json.dumps(shared, indent=2)}"
            )
    if shared is not None:
        _write_shared(options.share, shared)
    return exit_status_of(checks)


def start(options: Options) -> int:
    """Look at what can be seen at once, then run the agent until it is told to stop."""
    from fedecg_client.folder import open_site
    from fedecg_client.preflight import exit_status_of, quick_checks, wrong
    from fedecg_client.preflight.report import lines

    checks = quick_checks(open_site(options.dir))
    if wrong(checks):
        print("\n".join(lines(wrong(checks))), file=sys.stderr)
        return exit_status_of(checks)
    from fedecg_client.agent import run_agent

    return run_agent(options.dir)


def status(options: Options) -> int:
    """Show what the agent does."""
    from fedecg_client.folder import open_site
    from fedecg_client.overview import overview, status_lines
    from fedecg_client.preflight.report import printable

    document = overview(open_site(options.dir))
    if options.json:
        return _print_json(document)
    print("\n".join(map(printable, status_lines(document))))
    return 0


def stop(options: Options) -> int:
    """End the running agent cleanly; a site.toml that is wrong by now must not keep it running."""
    from fedecg_client.folder import open_site
    from fedecg_client.running import stop_agent

    state = options.dir.absolute() / "state"
    if not state.is_dir():
        state = open_site(options.dir).state
    print("stopped" if stop_agent(state, options.timeout) else "not running")
    return 0


def doctor(options: Options) -> int:
    """Say what does not match, and what the last refusals meant."""
    from fedecg_client.doctor import diagnose, refusals
    from fedecg_client.folder import open_site
    from fedecg_client.preflight.check import exit_status_of
    from fedecg_client.preflight.report import document, lines, printable

    site = open_site(options.dir)
    checks = diagnose(site, options.ca_fingerprint, options.key_fingerprint)
    said = refusals(site)
    if options.json:
        _print_json({**document(site.settings.name, _now(), checks), "refusals": said})
        return exit_status_of(checks)
    print("\n".join(lines(checks)))
    for refusal in said:
        print(
            printable(
                f"said  {refusal['code']} {refusal['meaning']} ({refusal['times']} times, last {refusal['last']})"
            )
        )
        print(f"        -> {refusal['fix']}")
    return exit_status_of(checks)


def not_a_folder(options: Options, name: str, word: object) -> None:
    """End as wrong use where the only word is a site's folder, so that what it stands for is missing."""
    if not (options.dir / "site.toml").is_file() and (Path(str(word)) / "site.toml").is_file():
        options.parser.error(f"{name} is missing: {word} is a site's folder")


def accept(options: Options) -> int:
    """Agree to a lock: one that waits, or one that is still to come."""
    not_a_folder(options, "STUDY", options.study)
    from fedecg_client.folder import lock_sha256, open_site, study_name
    from fedecg_client.overview import joined_studies
    from fedecg_client.pinned import accept as accept_lock

    site = open_site(options.dir)
    study, sha256 = study_name(options.study), lock_sha256(options.sha256)
    before = next((entry.lock for entry in joined_studies(site.state) if entry.study == study), None)
    lock = accept_lock(site.folder, study, sha256)
    if lock is None:
        print(
            f"agreed to study {study} with the lock {sha256}, which has not come yet; with any other it waits"
        )
    else:
        print("\n".join(lock.summary()))
        print("agreed: the site takes part from the coordinator's next message on, within half a minute")
    if lock and before and before.sha256() != sha256:
        print(
            f"It takes the place of the lock {before.sha256()}: a run of that one gets no more work done here\n"
            f"(FECG-416). To go back: fedecg-client accept {study} {before.sha256()}"
        )
    policy = site.settings.policy
    if not {study, "*"} & set(policy.studies):
        named = json.dumps([*policy.studies, study])
        print(f"The policy does not allow this study yet. In [policy] of site.toml write: studies = {named}")
    return 0


def studies(options: Options) -> int:
    """Show what the site has agreed to."""
    from fedecg_client.folder import open_site
    from fedecg_client.overview import joined_studies
    from fedecg_client.preflight.report import printable

    joined = joined_studies(open_site(options.dir).state)
    if options.json:
        return _print_json({"studies": [_study(entry) for entry in joined]})
    if not joined:
        print("no study has been joined yet: that comes with the coordinator's first message")
    for entry in joined:
        print("\n".join(map(printable, _agreement(entry))), end="\n\n")
    return 0


def _agreement(entry: Any) -> list[str]:
    """A study as the people at the site read it: what was agreed to, and what waits."""
    lines = entry.lock.summary() if entry.lock else []
    if entry.damaged:
        lines.append(f"{entry.study}: a damaged lock")
    if entry.agreed:
        lines.append(f"{entry.study}: agreed to the lock {entry.agreed}, which has not come yet")
    if entry.proposed:
        changed = "CHANGED by the coordinator, and refused until you agree:"
        lines += [
            "",
            changed if lines else "WAITS for this site's consent, and does nothing here until you agree:",
        ]
        lines += entry.proposed.summary()
        lines.append("Compare the hash with the coordinator over the phone (fedecg-server lock).")
        lines.append(f"To agree: fedecg-client accept {entry.study} {entry.proposed.sha256()}")
    return lines


def key(options: Options) -> int:
    """Print the fingerprint of the site's public key."""
    from fedecg.federation.identity import public_key_of
    from fedecg_client.folder import open_site
    from fedecg_client.keys import load_key, public_file, waiting_key

    site = open_site(options.dir)
    waiting = waiting_key(site.key)
    entries = {file.name: public_key_of(load_key(file)) for file in (site.key, waiting) if file}
    if options.json:
        new = entries[waiting.name].fingerprint if waiting else None
        return _print_json({"key": entries[site.key.name].fingerprint, "new-key": new})
    for name, public in entries.items():
        print(f"{public_file(Path(name))}  {public.fingerprint}")
    return 0


def ledger(options: Options) -> int:
    """Show the site's ledger; reading it checks it."""
    from fedecg_client.folder import open_site
    from fedecg_client.ledger_view import ledger_document, ledger_lines
    from fedecg_client.preflight.report import printable

    words = list(options.words)
    verify = words[:1] == ["verify"]
    if len(words) > 1 + verify:
        options.parser.error("one folder at most")
    site = open_site(Path(words[-1]) if len(words) > verify else Path())
    document = ledger_document(site.folder, site.settings.privacy)
    if verify:
        document = {"sequence": document["sequence"], "sha256": document["sha256"], "sound": True}
    if options.json:
        return _print_json(document)
    sound = f"sound: {document['sequence']} entries, each following the one before"
    print("\n".join(map(printable, [sound] if verify else ledger_lines(document))))
    return 0


def renew_key(options: Options) -> int:
    """Make a new key beside the old one; or put it in its place once the coordinator has it."""
    from fedecg_client.folder import open_site
    from fedecg_client.keys import load_key, new_key, public_file, use_new_key, waiting_key

    site = open_site(options.dir)
    if not options.use:
        public = new_key(site.key)
        waiting = waiting_key(site.key) or site.key
        if options.json:
            return _print_json(
                {"public-key": str(public_file(waiting)), "key-fingerprint": public.fingerprint}
            )
        print(f"{public_file(waiting).name}  {public.fingerprint}")
        try:
            load_key(site.key)
            meanwhile = "The site goes on with the old key."
        except RunError as error:
            meanwhile = f"There is no old key to go on with ({error.what}: {error.found})."
        print(
            f"{meanwhile} Next: send {public_file(waiting)} to the coordinator and read the\n"
            "fingerprint over the phone. The coordinator runs: fedecg-server site remove NAME, then\n"
            f"fedecg-server site add NAME --key {public_file(waiting).name}. Then here: fedecg-client renew-key --use"
        )
        return 0
    if waiting_key(site.key) is not None:
        _must_be_registered(site)
    used = use_new_key(site.key)
    if options.json:
        return _print_json({"public-key": str(public_file(site.key)), "key-fingerprint": used.fingerprint})
    print(f"node.pub  {used.fingerprint}")
    print("in use from the next start: fedecg-client stop, then fedecg-client start")
    return 0


def _must_be_registered(site: Any) -> None:
    """The old key goes only when the coordinator knows the new one.

    Raises:
        RunError: FECG-648 if it does not; as the agent's link if it cannot be asked.
    """
    from fedecg_client.faults import credentials
    from fedecg_client.keys import load_key, waiting_key
    from fedecg_client.preflight.fleet import Fleet

    if site.settings.server is None:
        raise credentials("site.toml", "no [server]")
    fleet = Fleet(site.settings.server.address, site.ca, load_key(waiting_key(site.key) or site.key))
    try:
        checks = [fleet.check_port(True), fleet.check_registered(None)]
    finally:
        fleet.close()
    for check in checks:
        if check.ok is not True:
            raise RunError(
                check.code or "FECG-649",
                "new key",
                found=check.found,
                expected="a coordinator that has it on its list",
                fix="The old key stays. Once it is added: fedecg-client renew-key --use.",
            )


def _study(entry: Any) -> dict[str, Any]:
    return {
        "study": entry.study,
        "sha256": entry.lock.sha256() if entry.lock else None,
        "summary": entry.lock.summary() if entry.lock else [],
        "proposed": entry.proposed.sha256() if entry.proposed else None,
        "proposed-summary": entry.proposed.summary() if entry.proposed else [],
        "agreed": entry.agreed,
    }


def _site_name(folder: Path) -> str:
    """The name in site.toml, or none if it cannot be read."""
    from fedecg_client.folder import open_site

    try:
        return open_site(folder).settings.name
    except FedecgError:
        return ""


def _keep(file: Path, report: dict[str, Any]) -> None:
    """The full report; a folder that cannot be written is told by the checks."""
    from fedecg.files import write_whole

    if not file.parent.is_dir():
        return
    try:
        write_whole(file, json.dumps(report, indent=1) + "\n")
        file.chmod(0o600)
    except (RunError, OSError):
        print("the report cannot be kept in state/", file=sys.stderr)


def _write_shared(file: Path, shared: dict[str, Any]) -> None:
    """Never over anything: a slip of the pen must not cost a key.

    Raises:
        SettingsError: FECG-121 if the file exists. OSError: it cannot be written.
    """
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(json.dumps(shared, indent=2) + "\n")
    except FileExistsError:
        raise SettingsError(
            "FECG-121",
            "--share",
            found="a file of that name",
            expected="a name that is not taken",
            fix="Choose another name, or remove that file.",
        ) from None
    print(f"written: {file}", file=sys.stderr)


def _print_json(document: dict[str, Any]) -> int:
    print(json.dumps(document, indent=2))
    return 0


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
