"""A ledger survives SIGKILL at any instant, and is on the disk before the release: seen from outside its process."""

import re
import shutil
import subprocess
import sys

import pytest
from killed_ledger import kills, releases_first


def test_20_kills_lose_no_spend_and_count_at_most_the_one_in_hand(tmp_path):
    told = kills(tmp_path, 20, seed=5)
    assert told.lost == 0
    assert told.most_unreleased_a_kill <= 1
    assert sum(told.released.values()) >= 5  # it was killed at work, and not before it had begun


@pytest.mark.slow
def test_500_kills_lose_no_spend_and_count_at_most_the_one_in_hand(tmp_path):
    told = kills(tmp_path, 500, seed=2026)
    assert told.lost == 0
    assert told.most_unreleased_a_kill <= 1
    assert sum(told.released.values()) >= 125
    assert sum(told.unreleased.values()) > 0  # some hit between the entry and its release


def test_the_kills_catch_a_site_that_releases_before_it_spends(tmp_path):
    assert kills(tmp_path, 12, seed=3, work=releases_first).lost > 0


ONE_SPEND = """
import os, sys
from pathlib import Path
from fedecg.privacy.accountant import Spend
from fedecg.privacy.ledger import Purpose, open_ledger
folder = Path(sys.argv[1])
with open_ledger(folder) as ledger:
    patients = {"train": ledger.pseudonyms(["7"])}
    try: os.stat("/before-the-spend")
    except OSError: pass
    ledger.spend(Purpose("s", "r", "align", 1), [Spend("training", "train", 1.0)], patients, 1e6, 1e-5)
    try: os.stat("/after-the-spend")
    except OSError: pass
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace")
def test_entries_and_their_folder_are_synced_before_spend_returns(tmp_path):
    trace = tmp_path / "trace"
    calls = "trace=fsync,fdatasync,stat,newfstatat,unlink,pwrite64"
    command = [
        "strace",
        "-f",
        "-y",
        "-o",
        str(trace),
        "-e",
        calls,
        sys.executable,
        "-c",
        ONE_SPEND,
        str(tmp_path / "site"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if "ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr[-2000:]
    text = trace.read_text()
    inside = text[text.index("/before-the-spend") : text.index("/after-the-spend")]
    written = inside.rindex("ledger.sqlite>, ")
    assert "pwrite64" in inside
    synced = [match.group(1) for match in re.finditer(r"f(?:data)?sync\(\d+<([^>]*)>\)\s+= 0", inside)]
    assert any(name.endswith("ledger.sqlite") for name in synced)
    assert synced[-1] == str(tmp_path / "site")  # the journal's removal, which makes the entry count
    assert written > 0
