"""Both renewals of docs/deploy.md in the middle of a running study: a site's key, then the server's certificate.

The guide's own commands, with its own names for the folders; the study must end with the bits of one that nobody
disturbed.
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from guide import PORTS, Terminal, blocks, free_ports, with_free_ports
from whole_study import Outcome, read_object, tail, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

WITHIN_S = 300.0  # a round: two seconds on two quiet cores
LAST = 12
LONGER = {
    "[survival]\nrounds = 3\n": f"[survival]\nrounds = {LAST}\n",
    "quorum = 2\n": "quorum = 2\nthreads = 1\n",
}
# The same study in one process, without columns to compare with.
ALONE = "--set evaluation.comparison=false --no-report --out alone"


def test_a_running_study_keeps_every_round_while_a_sites_key_and_the_certificate_are_renewed(
    terminal: Terminal,
) -> None:
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    make_longer(terminal.folder / "configs" / "two-hospitals.toml")
    prepare, run, _ = (with_free_ports(block, ports) for block in blocks("Ten minutes on one machine"))
    terminal.run(prepare)
    terminal.run("ln -s coordinator study; ln -s sites/city site")  # the names of the section Renewals
    certificate, at_site, at_coordinator, again_at_site = blocks("Renewals")
    terminal.run(in_the_background("\n".join(line for line in run.splitlines() if " start " in line)))

    until_mid_round(terminal.folder, 2)
    before = listed(terminal)
    terminal.run(at_site)
    until_mid_round(terminal.folder, 3)
    terminal.run("cp site/node.new.pub .")  # the mail
    assert "removed city: its messages are refused from now on" in terminal.run(at_coordinator)
    terminal.run(in_the_background(again_at_site))
    until_mid_round(terminal.folder, 6)
    after = listed(terminal)
    assert after["coast"] == before["coast"]
    assert after["city"] != before["city"]

    old = served(ports["port"])
    terminal.run(in_the_background(certificate))
    until_mid_round(terminal.folder, 7)
    new = x509.load_pem_x509_certificate((terminal.folder / "study/tls/server.crt").read_bytes())
    assert served(ports["port"]) == new.serial_number != old
    until(lambda: (terminal.folder / "study/run/result.json").exists(), terminal.folder, "the end")

    terminal.run("fedecg-client stop site; fedecg-client stop sites/coast")
    terminal.run(f"fedecg-simulate run configs/two-hospitals.toml {ALONE}")
    deployed, alone = (Outcome.of(terminal.folder / name) for name in ("study/run", "alone"))
    assert deployed.status == "completed"
    assert deployed.weights == alone.weights
    assert deployed.rounds == alone.rounds
    assert deployed.evaluation == alone.evaluation
    assert joins(terminal.folder) == ["city", "city", "city", "coast", "coast"]


def make_longer(study: Path) -> None:
    """More rounds, so that it runs while people type; the number of threads is part of the bits."""
    text = study.read_text()
    for old, new in LONGER.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    study.write_text(text)


def in_the_background(commands: str) -> str:
    """What runs in the foreground of a terminal, in that of nobody."""
    starts = r"(fedecg-(?:server|client) (?:start|resume) \S+)(?: &)?"
    text, number = re.subn(starts, r"\1 >>said.log 2>&1 &", commands)
    assert number
    return text


def until_mid_round(folder: Path, number: int) -> None:
    """A site trains in this survival round, or in one after it, but the last."""

    def trains() -> bool:
        said = read_object(folder / "sites" / "coast" / "state" / "progress.json")
        return said.get("phase") == "survival" and said.get("round", 0) >= number and said.get("steps", 0) > 0

    until(trains, folder, f"the middle of round {number}")
    assert read_object(folder / "study/run/status.json")["round"] < LAST


def until(condition: Callable[[], bool], folder: Path, what: str) -> None:
    """Wait for it while the study goes on."""

    def come() -> bool:
        assert not (folder / "study/run/failed.json").exists(), tail(folder / "said.log")
        return condition()

    wait_until(come, WITHIN_S, lambda: f"{what}: {tail(folder / 'said.log')}")


def listed(terminal: Terminal) -> dict[str, Any]:
    """Site -> its entry in the coordinator's list."""
    sites = json.loads(terminal.run("fedecg-server site list --dir study --json"))["sites"]
    return {site["name"]: site for site in sites}


def served(port: str) -> int:
    """Serial number of the certificate that sites are shown."""
    shown = ssl.get_server_certificate(("127.0.0.1", int(port)))
    return x509.load_pem_x509_certificate(shown.encode()).serial_number


def joins(folder: Path) -> list[str]:
    """Who has joined, as often as it has: at the start, with its new key, and when the coordinator came back."""
    lines = [json.loads(line) for line in (folder / "study/run/events.jsonl").read_text().splitlines()]
    return sorted(line["site"] for line in lines if line["event"] == "join")
