"""docs/deploy.md, done as it is written: every block of commands that the guide asks the reader to copy."""

from __future__ import annotations

import re
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
from guide import PORTS, ROOT, Terminal, blocks, free_ports, indented, with_free_ports

from fedecg_server.run_folder import read_json

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

UNPINNED = {"fedecg", "setuptools"}  # this; and what torch brings and `pip freeze` leaves out


def test_ten_minutes_on_one_machine_and_the_rest_of_the_guide(terminal: Terminal) -> None:
    """One study: the trial run, then backup, restore, renewals on its folders."""
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    prepare, run, end = (with_free_ports(block, ports) for block in blocks("Ten minutes on one machine"))
    said = terminal.run(prepare)
    assert "Lock (sha256)" in said
    assert said.count("agreed to study two-hospitals with the lock ") == 2
    said = terminal.run(run)
    assert "two-hospitals" in said
    assert re.search(r"\d+ hold, 0 to mend, 0 not tried", said)
    assert re.search(r"everything is in run/\. C-index 0\.\d{3} within sites; over all 0\.\d{3} \(95 %", said)
    said = terminal.run(end)
    assert "result.json" in said
    assert re.search(r"baseline +\d+ bins, up to [1-9]", said)
    page = (terminal.folder / "coordinator" / "run" / "report.html").read_text()
    assert re.search(r"Test part: 600 patients, \d\d events", page)
    assert "withheld by" not in page
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
    old = clone / "wheelhouse" / "fedecg-0.0.0-py3-none-any.whl"
    old.parent.mkdir()
    old.touch()  # what an earlier `make wheelhouse` has left must not be installed
    terminal.run(f"mkdir -p .venv/bin; ln -s {sys.executable} .venv/bin/python; {make}", timeout_s=900)
    assert not old.exists()
    assert unpinned(clone / "wheelhouse") <= UNPINNED
    install = "\n".join(indented("A site without internet").splitlines()[1:])
    terminal.environment |= {"PIP_FIND_LINKS": "", "PYTHONPATH": ""}  # nothing but the folder
    nowhere = "export PIP_INDEX_URL=http://127.0.0.1:9/ PIP_CONFIG_FILE=/dev/null\n"
    assert "preflight" in terminal.run(nowhere + install.replace("python3.11", sys.executable), timeout_s=900)
    extras = tomllib.loads((clone / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    readers = [re.split("[<>=]", wanted)[0] for wanted in extras["vendors"]]
    assert terminal.run(f"venv/bin/pip check; venv/bin/python -Pc 'import {', '.join(readers)}'")


def unpinned(wheelhouse: Path) -> set[str]:
    """Packages of the folder whose version constraints.txt does not name."""
    lines = (wheelhouse / "constraints.txt").read_text().splitlines()
    pinned = {plain(line) for line in lines if "==" in line}
    wheels = [wheel.name.split("-")[:2] for wheel in wheelhouse.glob("*.whl")]
    return {name for name, version in wheels if plain(f"{name}=={version}") not in pinned}


def plain(pin: str) -> str:
    """One spelling of a package's name, without the build of its version."""
    return re.sub(r"[-_.]+", "-", pin.split("==")[0].lower()) + "==" + pin.split("==")[1].split("+")[0]
