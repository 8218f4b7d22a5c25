"""`fedecg-server`: what the coordinator of a study does, from an empty folder to the report.

In:  the command line. Out: text, tables, files, an exit status.
Exit status: 0 done, 2 wrong use, 3 bad input, 4 refused by policy, 5 finished without some sites, 1 anything else.
Nothing here loads torch or Flower; what does is loaded when its command runs.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from fedecg.exits import exit_status
from fedecg_server import commands

__all__ = ["main"]

Commands = argparse._SubParsersAction  # argparse has no public name for it

DESCRIPTION = "Coordinate a federated study: hospitals train one network, and no ECG leaves a hospital."
EXAMPLES = """from nothing to a report:
  fedecg-server init study --name ecg.example.org   # a folder with keys and certificates; then:  cd study
  (edit study.toml; give tls/ca.crt to every site)
  fedecg-server site add city --key node.pub        # once for every site; node.pub comes from the site
  fedecg-server lock                                # what the sites agree to; compare the hash over the phone
  fedecg-server start                               # in the foreground; Ctrl-C stops it cleanly
  fedecg-server status                              # from another terminal
  fedecg-server resume                              # after a stop or a crash: at most one round is repeated
  fedecg-server report

DIR is the current folder unless it is named. Sites use fedecg-client. Research use only: not a medical device.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        options.parser.print_help()
        return 0
    return exit_status(lambda: int(options.command(options)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "fedecg-server",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fedecg-server {version('fedecg')}")
    parser.set_defaults(command=None, parser=parser)
    parsers = parser.add_subparsers(metavar="COMMAND")
    _add_folder_commands(parsers)
    _add_site_commands(parsers)
    _add_study_commands(parsers)
    return parser


def _add_folder_commands(parsers: Commands[argparse.ArgumentParser]) -> None:
    init = _command(
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
        folder=False,
    )
    init.add_argument("dir", type=Path, metavar="DIR", help="must not exist")
    init.add_argument("--name", required=True, metavar="HOST", help="public DNS name or IPv4 address")
    init.add_argument("--port", type=int, metavar="N", help="that sites reach (default: 9092)")
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
    backup = _command(
        parsers,
        "backup",
        commands.backup,
        "everything that must not be lost, in one file",
        """  fedecg-server backup --out /mnt/elsewhere/study-monday.tar

The file holds private keys. Restore, here or on another machine of the same name (never on two at once):

  mkdir -m 700 DIR && tar -xpf study-monday.tar -C DIR && fedecg-server start DIR
""",
    )
    backup.add_argument("--out", type=Path, required=True, metavar="FILE.tar", help="must not exist")
    _json_option(backup)


def _add_site_commands(parsers: Commands[argparse.ArgumentParser]) -> None:
    site = parsers.add_parser("site", help="add, remove and list the sites that may take part")
    site.set_defaults(parser=site)
    actions = site.add_subparsers(metavar="ACTION")
    add = _command(
        actions,
        "add",
        commands.site_add,
        "let a site take part, at once",
        """  fedecg-server site add city --key /media/usb/node.pub

NAME is the name in the site's site.toml; node.pub is the public key that `fedecg-client init` made at the site.
Compare the fingerprint that is printed with the one that the site reads over the phone.
""",
        folder=False,
    )
    add.add_argument("name", metavar="NAME")
    add.add_argument("--key", type=Path, required=True, metavar="FILE.pub", help="the site's public key")
    remove = _command(
        actions,
        "remove",
        commands.site_remove,
        "let a site take part no more, at once",
        "Its messages are refused from now on. Its key does not come back: to return, a site makes a new one.\n",
        folder=False,
    )
    remove.add_argument("name", metavar="NAME")
    remove.add_argument("--yes", action="store_true", help="do not ask")
    listing = _command(actions, "list", commands.site_list, "names, fingerprints, node ids", "", folder=False)
    for action in (add, remove, listing):
        action.add_argument(
            "--dir", type=Path, default=Path(), metavar="DIR", help="default: the current folder"
        )
        _json_option(action)


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
    _json_option(lock)
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
        "--timeout", type=_seconds, default=60.0, metavar="S", help="longest wait, in seconds (default: 60)"
    )
    status = _command(
        parsers,
        "status",
        commands.status,
        "where the study stands, whom it waits for, when the certificate ends",
        "Works beside a running study, after it, and after a crash.\n",
    )
    _json_option(status)
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
        "--port", type=_port, metavar="N", help="default: dashboard-port of server.toml; 0 = any that is free"
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
    _json_option(report)


def _command(
    parsers: Commands[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    words: str,
    epilog: str,
    *,
    folder: bool = True,
) -> argparse.ArgumentParser:
    parser = parsers.add_parser(
        name,
        help=words,
        description=words[0].upper() + words[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if folder:
        parser.add_argument(
            "dir", type=Path, nargs="?", default=Path(), metavar="DIR", help="default: the current folder"
        )
    parser.set_defaults(command=run, parser=parser)
    return parser


def _json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def _seconds(text: str) -> float:
    seconds = float(text)
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError
    return seconds


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise ValueError
    return port


if __name__ == "__main__":
    sys.exit(main())
