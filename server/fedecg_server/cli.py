"""`fedecg-server`: what the coordinator of a study does, from an empty folder to the report.

In:  the command line. Out: text, tables, files, an exit status.
Exit status: 0 done, 2 wrong use, 3 bad input, 4 refused by policy, 5 finished without some sites, 1 anything else.
Nothing here loads torch or Flower; what does is loaded when its command runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from fedecg.command_line import Commands, add_command, add_group, add_json, port, program, run, seconds
from fedecg_server import commands

__all__ = ["main"]

_command = partial(add_command, folder=True)

DESCRIPTION = "Coordinate a federated study: hospitals train one network, and no ECG leaves a hospital."
EXAMPLES = """from nothing to a report:
  fedecg-server init study --name ecg.example.org   # a folder with keys and certificates; then:  cd study
  (edit study.toml; give tls/ca.crt to every site)
  fedecg-server site add city --key node.pub        # once for every site; node.pub comes from the site
  fedecg-server lock                                # what the sites agree to; read them its hash over the phone
  fedecg-server start                               # in the foreground; Ctrl-C stops it cleanly
  fedecg-server status                              # from another terminal
  fedecg-server resume                              # after a stop or a crash: at most one round is repeated
  fedecg-server report

DIR is the current folder unless it is named. Sites use fedecg-client. Research use only: not a medical device.
Exit status: 0 done, 2 wrong use, 3 wrong input, 4 refused by policy, 5 done without some sites, 1 anything else.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser, parsers = program("fedecg-server", DESCRIPTION, EXAMPLES)
    _add_folder_commands(parsers)
    _add_site_commands(parsers)
    _add_study_commands(parsers)
    return run(parser, arguments, reading=("site list", "lock", "stop", "status", "dashboard"))


def _add_folder_commands(parsers: Commands[argparse.ArgumentParser]) -> None:
    init = add_command(
        parsers,
        "init",
        commands.init,
        "make a coordinator's folder, with a certificate authority of its own",
        """HOST is what sites write in their site.toml and what the certificate is for: the public DNS name of this
machine, or its IPv4 address. A site connects to HOST:N and to nothing else.

  fedecg-server init /srv/study --name ecg.example.org
  fedecg-server init trial --name 127.0.0.1 --port 19092     # everything on one machine

Next: edit DIR/study.toml; give DIR/tls/ca.crt to every site.
""",
    )
    init.add_argument("dir", type=Path, metavar="DIR", help="must not exist")
    init.add_argument("--name", required=True, metavar="HOST", help="public DNS name or IPv4 address")
    init.add_argument("--port", type=int, metavar="N", help="that sites reach (default: 9092)")
    add_json(init)
    renew = _command(
        parsers,
        "renew",
        commands.renew,
        "a new server certificate, by the same authority: sites change nothing",
        """For the name that stands in server.toml now. A running coordinator takes it at its next start:
fedecg-server stop; fedecg-server resume. Sites come back by themselves and no round is lost.
""",
    )
    renew.add_argument(
        "--new-key", action="store_true", help="also make a new key (when the old one was seen)"
    )
    add_json(renew)
    backup = _command(
        parsers,
        "backup",
        commands.backup,
        "everything that must not be lost, in one file",
        """  fedecg-server backup --out /mnt/elsewhere/study-monday.tar

The file holds private keys. Restore, here or on another machine of the same name (never on two at once):

  mkdir -m 700 DIR && tar -xpf study-monday.tar -C DIR && fedecg-server site list --dir DIR
  fedecg-server site remove NAME --dir DIR      # who was removed since is on the list again
  fedecg-server start DIR --restored
""",
    )
    backup.add_argument("--out", type=Path, required=True, metavar="FILE.tar", help="must not exist")
    add_json(backup)


def _add_site_commands(parsers: Commands[argparse.ArgumentParser]) -> None:
    actions = add_group(parsers, "site", "add, remove and list the sites that may take part")
    add = add_command(
        actions,
        "add",
        commands.site_add,
        "let a site take part, at once",
        """  fedecg-server site add city --key /media/usb/node.pub

NAME is the name in the site's site.toml; node.pub is the public key that `fedecg-client init` made at the site.
Compare the fingerprint that is printed with the one that the site reads over the phone.
""",
    )
    add.add_argument("name", metavar="NAME")
    add.add_argument("--key", type=Path, required=True, metavar="FILE.pub", help="the site's public key")
    remove = add_command(
        actions,
        "remove",
        commands.site_remove,
        "let a site take part no more, at once",
        """Its messages are refused from now on. Its key does not come back: to return, a site makes a new one
(fedecg-client renew-key).
""",
    )
    remove.add_argument("name", metavar="NAME")
    remove.add_argument("--yes", action="store_true", help="do not ask")
    listing = add_command(actions, "list", commands.site_list, "names, fingerprints, node ids")
    for action in (add, remove, listing):
        action.add_argument(
            "--dir", type=Path, default=Path(), metavar="DIR", help="default: the current folder"
        )
        add_json(action)


def _add_study_commands(parsers: Commands[argparse.ArgumentParser]) -> None:
    lock = _command(
        parsers,
        "lock",
        commands.lock,
        "what the sites are asked to agree to, and its hash",
        """Settings, code bank, installed code and list of sites under one sha256. A site sees the same lines
and the same hash before it takes part, and refuses the study if any of it changes afterwards.
""",
    )
    lock.add_argument("--sha256", action="store_true", help="print the hash alone")
    add_json(lock)
    start = _command(
        parsers,
        "start",
        commands.start,
        "begin the study, or go on with it, in the foreground",
        """Ctrl-C or SIGTERM stops it cleanly. An unfinished run goes on, a finished one stays as it is, one that ended
with a code waits for `resume`: a service may always call `start`.
""",
    )
    start.add_argument(
        "--new", action="store_true", help="put an earlier run aside (run-DATE-TIME) and begin another"
    )
    start.add_argument(
        "--restored",
        action="store_true",
        help="after a backup was restored: no site of the list was removed since it was made",
    )
    _command(
        parsers,
        "resume",
        commands.resume,
        "go on after a stop, a crash or a code whose cause is mended, in the foreground",
        "At most one round is repeated. It refuses where there is nothing to go on with.\n",
    )
    stop = _command(
        parsers, "stop", commands.stop, "stop a running coordinator cleanly", "`resume` goes on.\n"
    )
    stop.add_argument(
        "--timeout", type=seconds, default=60.0, metavar="S", help="longest wait, in seconds (default: 60)"
    )
    status = _command(
        parsers,
        "status",
        commands.status,
        "where the study stands, whom it waits for, when the certificate ends",
        "Works beside a running study, after it, and after a crash.\n",
    )
    add_json(status)
    dashboard = _command(
        parsers,
        "dashboard",
        commands.dashboard,
        "the web page of the study, on this machine only, until Ctrl-C",
        """For a study that has stopped or ended: `start` serves the same page while it runs, at dashboard-port of
server.toml. It reads files and changes nothing.
""",
    )
    dashboard.add_argument(
        "--port", type=port, metavar="N", help="default: dashboard-port of server.toml; 0 = any that is free"
    )
    report = _command(
        parsers,
        "report",
        commands.report,
        "report.html and model card of a finished study",
        "The same as: fedecg report DIR/run\n",
    )
    report.add_argument("--out", type=Path, metavar="FILE", help="of the page (default: DIR/run/report.html)")
    report.add_argument(
        "--outcomes",
        choices=("observed", "simulated"),
        help="what the sites' outcomes are, if the run does not say",
    )
    add_json(report)


if __name__ == "__main__":
    sys.exit(main())
