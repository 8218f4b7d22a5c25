"""`fedecg-server site` and `lock`: who may take part, with consent, and what they agree to."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from server_words import Captured

from fedecg.federation.lock import StudyLock
from fedecg_server.cli import main
from fedecg_server.coordinator import open_coordinator
from fedecg_server.sites import read_sites


def test_sites_are_added_listed_and_removed_with_consent(
    folder: Path, public_key: Callable[[str], str], capsys: Captured
) -> None:
    at = ["--dir", str(folder)]
    assert main(["site", "list", *at]) == 0
    assert "no site yet. Next: fedecg-server site add" in capsys.readouterr().out
    assert main(["site", "add", "city", "--key", public_key("city"), *at]) == 0
    told = capsys.readouterr().out
    assert "Compare this fingerprint" in told
    assert "as soon as the coordinator is started" in told
    assert main(["site", "add", "coast", "--key", public_key("coast"), *at, "--json"]) == 0
    coast = json.loads(capsys.readouterr().out)
    assert coast["name"] == "coast"
    assert coast["live"] is False
    assert main(["site", "list", *at, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["sites"]
    assert [(site["name"], site["node-id"]) for site in listed] == [("city", None), ("coast", None)]
    assert main(["site", "list", *at]) == 0
    assert coast["fingerprint"] in capsys.readouterr().out  # in one piece, however narrow the terminal
    assert main(["site", "remove", "coast", *at]) == 1
    assert "FECG-679 consent: found no terminal to ask at; expected y, or --yes" in capsys.readouterr().err
    assert set(read_sites(open_coordinator(folder)).sites) == {"city", "coast"}
    assert main(["site", "remove", "coast", "--yes", *at]) == 0
    assert set(read_sites(open_coordinator(folder)).sites) == {"city"}


@pytest.mark.parametrize(("typed", "status"), [("y\n", 0), ("\n", 1), ("no\n", 1)])
def test_at_a_terminal_a_removal_is_asked_for(
    folder: Path, public_key: Callable[[str], str], typed: str, status: int
) -> None:
    assert main(["site", "add", "city", "--key", public_key("city"), "--dir", str(folder)]) == 0
    near, far = pty.openpty()
    try:
        words = [sys.executable, "-m", "fedecg_server.cli", "site", "remove", "city"]
        process = subprocess.Popen(
            words, stdin=far, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder
        )
        os.write(near, typed.encode())
        _, told = process.communicate(timeout=20)
    finally:
        os.close(near)
        os.close(far)
    assert process.returncode == status
    assert b"Remove city? Its key does not come back" in told
    assert (b"FECG-679 consent: found an answer other than y" in told) == (status == 1)
    assert bool(read_sites(open_coordinator(folder)).sites) == (status == 1)


def test_the_lock_is_the_one_that_sites_compare(
    folder: Path, public_key: Callable[[str], str], capsys: Captured
) -> None:
    assert main(["lock", str(folder)]) == 0
    told = capsys.readouterr()
    assert "no site in the list yet" in told.err
    assert "Sites: none yet: fedecg-server site add NAME --key node.pub\n" in told.out
    for name in ("valley", "city"):
        main(["site", "add", name, "--key", public_key(name), "--dir", str(folder)])
    capsys.readouterr()
    assert main(["lock", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    lock = StudyLock.model_validate(document["lock"])
    assert lock.sites == ["city", "valley"]  # in one order, whatever the order of adding
    assert lock.sha256() == document["sha256"]
    assert main(["lock", str(folder)]) == 0
    words = capsys.readouterr().out
    assert document["sha256"] in words
    assert "Leaves the site" in words
    text = (folder / "study.toml").read_text()
    (folder / "study.toml").write_text(text.replace("rounds = 10", "rounds = 11", 1))
    assert main(["lock", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sha256"] != document["sha256"]
