"""`fedecg-client`: what a hospital does, from an empty folder to a running site.

In:  the command line. Out: text, files, an exit status.
Exit status: 0 done, 2 wrong use, 3 settings or data are wrong, 4 refused by the site's policy, 1 connection and
anything else. Nothing here loads torch or Flower; what does is loaded when its command runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from fedecg.command_line import Commands, add_command, add_json, program, run, seconds
from fedecg_client import commands, leaving_commands
from fedecg_client.environment import set_environment

__all__ = ["main"]

_command = partial(add_command, folder=True)

READING = ("doctor", "status", "stop", "studies", "key", "ledger", "egress")

DESCRIPTION = "Take part in a federated study as a hospital: the network travels, no ECG leaves."
EXAMPLES = """from nothing to a running site:
  fedecg-client init site --name city --server ecg.example.org:9092 --ca ca.crt \\
                --cohort cohort.csv --store store --study heart-failure
  (send site/node.pub to the coordinator; compare both fingerprints over the phone)     then:  cd site
  fedecg-client preflight        # everything that can be wrong, with its fix
  fedecg-client accept heart-failure SHA256     # agree to the study: its hash, as the coordinator reads it
  fedecg-client start            # in the foreground; Ctrl-C stops it cleanly
  fedecg-client status           # from another terminal
  fedecg-client studies          # what this site has agreed to, in plain words
  fedecg-client doctor           # what does not match, when something does not work

DIR is the current folder unless it is named. The coordinator uses fedecg-server.
Exit status: 0 done, 2 wrong use, 3 wrong settings or data, 4 refused by this site's policy, 1 anything else.
Research use only: not a medical device.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    set_environment()
    parser, parsers = program("fedecg-client", DESCRIPTION, EXAMPLES)
    _add_init(parsers)
    _add_checks(parsers)
    _add_agent_commands(parsers)
    _add_agreement_commands(parsers)
    _add_leaving_commands(parsers)
    _add_ledger(parsers)
    return run(parser, arguments, reading=READING)


def _add_init(parsers: Commands[argparse.ArgumentParser]) -> None:
    init = add_command(
        parsers,
        "init",
        commands.init,
        "make a site's folder, with a key that never leaves it",
        """  fedecg-client init site --name city --server ecg.example.org:9092 --ca ca.crt \\
                --cohort /data/cohort.csv --store /data/store --study heart-failure

Prints two fingerprints to compare over the phone. Everything can be changed later in DIR/site.toml, which explains
every key. Send DIR/node.pub to the coordinator, and nothing else of that folder.
""",
    )
    init.add_argument("dir", type=Path, metavar="DIR", help="absent or empty")
    init.add_argument(
        "--name", required=True, metavar="NAME", help="of this site, as the coordinator adds it"
    )
    init.add_argument("--server", required=True, metavar="HOST:PORT", help="as the coordinator gave it")
    init.add_argument(
        "--ca", type=Path, required=True, metavar="FILE", help="the coordinator's ca.crt, brought by hand"
    )
    init.add_argument(
        "--cohort", type=Path, metavar="FILE", help="table of patients (default: DIR/cohort.csv)"
    )
    init.add_argument("--store", type=Path, metavar="FOLDER", help="preprocessed ECGs (default: DIR/store)")
    init.add_argument(
        "--study",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="that this site takes part in (default: none)",
    )
    add_json(init)


def _add_checks(parsers: Commands[argparse.ArgumentParser]) -> None:
    preflight = _command(
        parsers,
        "preflight",
        commands.preflight,
        "check everything that can be wrong before taking part",
        """Settings, key, room, the way to the coordinator, the site's own data: each check under a name, with its
code and its fix. The full report stays here, in DIR/state/preflight.json.

  fedecg-client preflight --share report.json      # a report without small counts, paths or names, that may be sent

It is shown before it is written, and sent by nobody but you. A running agent is not disturbed.
""",
    )
    preflight.add_argument(
        "--share", type=Path, metavar="FILE", help="write the report that may leave the site"
    )
    add_json(preflight)
    doctor = _command(
        parsers,
        "doctor",
        commands.doctor,
        "say what does not match: name, fingerprints, clock, key, versions, agreed studies",
        """  fedecg-client doctor --ca-fingerprint "1A2B 3C4D ..." --key-fingerprint SHA256:...

with what the coordinator reads to you over the phone (fedecg-server status, fedecg-server site list). Also explains the
codes of the last refusals.
""",
    )
    doctor.add_argument("--ca-fingerprint", default="", metavar="HEX", help="of the coordinator's ca.crt")
    doctor.add_argument(
        "--key-fingerprint", default="", metavar="SHA256:...", help="of this site's key, as it is listed"
    )
    add_json(doctor)


def _add_agent_commands(parsers: Commands[argparse.ArgumentParser]) -> None:
    _command(
        parsers,
        "start",
        commands.start,
        "take part, in the foreground, until Ctrl-C or SIGTERM",
        """Waits for the coordinator as long as it takes, and comes back by itself after a cut.
As a service: docs/systemd. It connects to the coordinator and to nobody else.
""",
    )
    status = _command(
        parsers, "status", commands.status, "what the agent does, how far it is, what it waits for"
    )
    add_json(status)
    stop = _command(
        parsers,
        "stop",
        commands.stop,
        "stop the running agent cleanly",
        "`start` goes on with what it had begun.\n",
    )
    stop.add_argument(
        "--timeout", type=seconds, default=30.0, metavar="S", help="longest wait, in seconds (default: 30)"
    )


def _add_agreement_commands(parsers: Commands[argparse.ArgumentParser]) -> None:
    studies = _command(
        parsers,
        "studies",
        commands.studies,
        "what this site has agreed to, in plain words, with its hash",
        "A study that waits for consent, or that changed, is shown too, and does nothing here until `accept`.\n",
    )
    add_json(studies)
    accept = _command(
        parsers,
        "accept",
        commands.accept,
        "agree to a study, or to its change",
        """Compare the hash with the coordinator over the phone first: fedecg-server lock. It may be given before the
study has come: then the site joins as soon as it comes with this hash, and with no other.
""",
    )
    accept.add_argument("study", metavar="STUDY")
    accept.add_argument("sha256", metavar="SHA256", help="of the lock, as `studies` shows it")
    key = _command(
        parsers, "key", commands.key, "the fingerprint of this site's key, to be read over the phone"
    )
    add_json(key)
    renew = _command(
        parsers,
        "renew-key",
        commands.renew_key,
        "a new key, without losing a run",
        """  fedecg-client renew-key          # makes node.new.key and node.new.pub; the old key goes on
  (send node.new.pub; the coordinator: fedecg-server site remove NAME; fedecg-server site add NAME --key node.new.pub)
  fedecg-client renew-key --use    # once the coordinator has it, and not before
  fedecg-client stop; fedecg-client start

Rounds in between go on without this site, as when its line is cut.
""",
    )
    renew.add_argument("--use", action="store_true", help="put the new key in the place of the old one")
    add_json(renew)


def _add_ledger(parsers: Commands[argparse.ArgumentParser]) -> None:
    ledger = add_command(
        parsers,
        "ledger",
        commands.ledger,
        "what was released about this site's patients with differential privacy, and what is left",
        """  fedecg-client ledger             # every kind of release, epsilon so far, what is left
  fedecg-client ledger verify      # read and check every entry; exit status 4 if one was changed or is missing

The budget stands in [privacy] of site.toml. Keep ledger.sqlite and ledger.key together, and never bring back an older
copy: the site then refuses every study until the latest one is back.
""",
    )
    ledger.add_argument(
        "words", nargs="*", metavar="[verify] [DIR]", help="check alone; default of DIR: the current folder"
    )
    add_json(ledger)


def _add_leaving_commands(parsers: Commands[argparse.ArgumentParser]) -> None:
    egress = _command(
        parsers,
        "egress",
        leaving_commands.egress,
        "everything that has left this site: what, when, how much, to whom",
        """Each message is written down before it leaves, in DIR/state/egress: every number of it, and of every array
its shape, L2 norm and sha256. --json prints all of that; without it, one line a message.

  fedecg-client egress --study heart-failure --json > what-left.json
""",
    )
    egress.add_argument("--run", default="", metavar="RUN", help="of this run alone")
    egress.add_argument("--study", default="", metavar="STUDY", help="of this study alone")
    add_json(egress)
    approve = _command(
        parsers,
        "approve",
        leaving_commands.approve,
        "look at the first message of a study, and let it leave",
        """With privacy.approve = "first-round" two messages of a study are held until this command: the one with which
the site would join, and the first one with sums or weights. Later ones of the same study (the same lock) leave without
being asked, and stand in `fedecg-client egress`.
""",
    )
    withdraw = _command(
        parsers,
        "withdraw",
        leaving_commands.withdraw,
        "take patients out of everything from now on",
        """PATIENTS-FILE names one patient a line, as the column patient of the table does. Shows how many it found,
then asks.

  fedecg-client withdraw patients.txt

Their signals are overwritten in the store. A running agent leaves them out from its next task on.
""",
    )
    withdraw.add_argument("patients", type=Path, metavar="PATIENTS-FILE")
    withdraw.add_argument("--yes", action="store_true", help="do not ask")
    approve.add_argument("study", metavar="STUDY")
    approve.add_argument("--yes", action="store_true", help="do not ask")


if __name__ == "__main__":
    sys.exit(main())
