"""`fedecg-simulate data`: what public sets there are, whether a folder holds one, and fetching it.

In:  parsed options. Out: text or JSON on stdout, notes and errors on stderr, an exit status. Called by
     `fedecg_simulations.cli`.
"""

from __future__ import annotations

import argparse
import json
import urllib.parse
from pathlib import Path
from typing import Any

from fedecg.command_line import Commands, add_command, add_group, add_json
from fedecg.progress import Progress
from fedecg_simulations.published.catalogue import SETS, PublishedSet

__all__ = ["add_data"]

MOST_CONNECTIONS = 16
CHECK_HELP = """Layout, version and counts by the set's own tables; then every file against the list of checksums
that its publisher gives (SHA256SUMS.txt of PhysioNet, MD5SUMS.txt that fetch makes of Zenodo's record), if it is there.

  fedecg-simulate data check ptbxl /data/ptb-xl
  fedecg-simulate data check ptbxl /data/ptb-xl --only records100 ptbxl_database.csv scp_statements.csv
  fedecg-simulate data check mimic-iv-ecg /data/mimic-iv-ecg --no-checksums --json

Exit status: 0 it is whole, as far as was looked; 3 it is not (every fault is said).
"""
FETCH_HELP = """From PhysioNet or Zenodo, file by file. What is there is compared with its checksum and kept; what was
begun is gone on with. Run it again after an interruption.

  fedecg-simulate data fetch ptbxl /data/ptb-xl --only records100 '*.csv' LICENSE.txt
  fedecg-simulate data fetch cinc2021 /data/cinc2021 --only training/georgia training/ningbo
  fedecg-simulate data fetch mimic-iv-ecg /data/mimic-iv-ecg --only '*.csv' files/p1000

ptbxl 3 GB, cinc2021 13 GB, code15 68 GB unpacked (and its archives), mimic-iv-ecg 90 GB in 1.6 million files.
mimic-iv is for credentialed users of PhysioNet: fedecg does not fetch it, and takes no passwords.
Mind the licence of each set (fedecg-simulate data list). A proxy: HTTPS_PROXY.
Exit status: 0 all is there; 4 not for everybody; 5 some files could not be had; 1 nothing came.
"""


def add_data(commands: Commands[argparse.ArgumentParser]) -> None:
    """Hook in the group."""
    group = add_group(commands, "data", "public data sets: what there is, check a folder, fetch one")
    add_json(add_command(group, "list", _list, "the public data sets that fedecg reads by name"))
    check = add_command(
        group, "check", _check, "is a folder the data set, whole and in its version", CHECK_HELP
    )
    fetch = add_command(group, "fetch", _fetch, "download a data set, or go on with it", FETCH_HELP)
    for command in (check, fetch):
        command.add_argument("name", choices=tuple(SETS), metavar="NAME", help=", ".join(SETS))
        command.add_argument("path", type=Path, metavar="PATH", help="folder of the data set")
        command.add_argument(
            "--only",
            nargs="+",
            action="extend",
            default=[],
            metavar="PATTERN",
            help="these files: paths, folders, or patterns with * in quotes",
        )
        add_json(command)
    check.add_argument(
        "--no-checksums", action="store_true", help="do not read the files, only look for them"
    )
    fetch.add_argument("--base-url", type=_address, metavar="URL", help="another server with the same paths")
    fetch.add_argument(
        "--connections",
        type=_connections,
        default=4,
        metavar="N",
        help="files at a time, 1 to 16 (default: 4)",
    )


def _connections(text: str) -> int:
    if text.isdecimal() and 1 <= int(text) <= MOST_CONNECTIONS:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a number from 1 to {MOST_CONNECTIONS}")


def _address(text: str) -> str:
    parts = urllib.parse.urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        raise argparse.ArgumentTypeError("expected http://... or https://... without a user or a query")
    return text


def _list(options: argparse.Namespace) -> int:
    if options.json:
        print(json.dumps([_as_json(one) for one in SETS.values()], indent=2))
        return 0
    for one in SETS.values():
        ecgs = f"{one.records:,} ECGs, " if one.records else ""
        print(f"{one.name:13} {one.version:6} {ecgs}{one.size_gb:g} GB, {one.licence}, {one.access}")
        print(f"{'':13} {one.title}\n{'':13} {one.page}")
    return 0


def _as_json(one: PublishedSet) -> dict[str, Any]:
    return {
        "name": one.name,
        "version": one.version,
        "records": one.records,
        "size-gb": one.size_gb,
        "licence": one.licence,
        "access": one.access,
        "title": one.title,
        "page": one.page,
        "doi": one.doi,
    }


def _check(options: argparse.Namespace) -> int:
    from fedecg_simulations.published.checking import check_set

    progress = Progress()
    checked = check_set(SETS[options.name], options.path, options.only, not options.no_checksums, progress)
    for note in checked.notes:
        progress.warn(note)
    for fault in checked.faults:
        progress.say(str(fault))
    if options.json:
        faults = [{"code": fault.code, "message": str(fault), "fix": fault.fix} for fault in checked.faults]
        document = {
            "name": checked.name,
            "version": checked.version,
            "whole": not faults,
            "counts": checked.counts,
        }
        print(json.dumps({**document, "notes": checked.notes, "faults": faults}, indent=2))
    else:
        counted = ", ".join(f"{name} {count}" for name, count in checked.counts.items())
        print(f"{checked.name} {checked.version}: {'not whole' if checked.faults else 'whole'}; {counted}")
    return 3 if checked.faults else 0


def _fetch(options: argparse.Namespace) -> int:
    from fedecg_simulations.published.fetching import failure_of, fetch_set

    progress = Progress()
    one = SETS[options.name]
    progress.say(f"{one.name} {one.version}, {one.licence}: {one.page}")
    result = fetch_set(one, options.path, options.only, options.base_url or "", options.connections, progress)
    failure = failure_of(result)
    if failure is not None:
        progress.say(str(failure))
    counts = {
        "files": result.files,
        "there": result.there,
        "fetched": result.fetched,
        "bytes": result.bytes,
        "unpacked": result.unpacked,
    }
    if options.json:
        failed = {kind: len(paths) for kind, paths in result.failed.items()}
        told = {"code": failure.code, "message": str(failure), "fix": failure.fix} if failure else None
        print(
            json.dumps(
                {"name": one.name, "version": one.version, **counts, "failed": failed, "error": told},
                indent=2,
            )
        )
    else:
        print(", ".join(f"{name} {count}" for name, count in counts.items()))
    return 5 if failure else 0
