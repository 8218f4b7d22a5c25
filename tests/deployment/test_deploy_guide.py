"""docs/deploy.md, done as it is written: every block of commands that the guide asks the reader to copy."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
from guide import PORTS, ROOT, Terminal, blocks, free_ports, indented, with_free_ports

from fedecg_server.run_folder import read_json

pytestmark = pytest.mark.slow


def test_ten_minutes_on_one_machine_and_the_rest_of_the_guide(terminal: Terminal) -> None:
    """One study: the trial run, then backup, restore, renewals on its folders."""
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    prepare, run, end = (with_free_ports(block, ports) for block in blocks("Ten minutes on one machine"))
    said = terminal.run(prepare)
    assert "Lock (sha256)" in said
    assert said.count("agreed to study two-hospitals with the lock ") == 2
    said = terminal.run(run)
    assert "two-hospitals" in said
    said = terminal.run(end)
    assert "result.json" in said
    result = read_json(terminal.folder / "coordinator" / "run" / "result.json")
    assert result["status"] == "completed"
    assert [site["name"] for site in result["sites"]] == ["city", "coast"]
    assert (terminal.folder / "coordinator" / "run" / "report.html").exists()

    backup, restore, start = indented("Backup and restore").splitlines()
    terminal.run(f"ln -s coordinator study; {backup.replace('/elsewhere/', '')}")
    said = terminal.run(f"rm study; {restore}; fedecg-server start study || test $? = 1")
    assert "city" in said
    assert re.search(
        r"FECG-693 list of sites: found that of a backup of 20.*: city, coast; expected your word", said
    )
    assert "nothing to do; another run" in terminal.run(start)  # the study is finished
    assert terminal.run("fedecg-server status study").startswith("state    completed")
    terminal.run(
        "fedecg-server renew study; fedecg-client renew-key sites/city; fedecg-client key sites/city"
    )


def test_a_site_without_internet_installs_from_the_wheelhouse(terminal: Terminal, tmp_path: Path) -> None:
    make, *_ = indented("A site without internet").split("#")
    clone = tmp_path / "clone"
    shutil.copytree(
        ROOT,
        clone,
        ignore=shutil.ignore_patterns(".venv", "runs", ".git", "wheelhouse", "*_cache", "hospitals"),
    )
    terminal.folder = clone
    terminal.run(f"mkdir -p .venv/bin; ln -s {sys.executable} .venv/bin/python; {make}", timeout_s=900)
    install = "\n".join(indented("A site without internet").splitlines()[1:])
    nowhere = "export PIP_INDEX_URL=http://127.0.0.1:9/ PIP_CONFIG_FILE=/dev/null\n"
    assert "preflight" in terminal.run(nowhere + install.replace("python3.11", sys.executable), timeout_s=900)
