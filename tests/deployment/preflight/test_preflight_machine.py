"""Preflight of this machine: disk, clock, settings, exit status."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys

import pytest
from site_checks import MakeFolder, by_name, codes

from fedecg_client.preflight import LINE, run_preflight
from fedecg_client.preflight.check import exit_status_of, failed, passed


def test_a_disk_that_is_full_is_told_and_everything_else_all_the_same(make_folder: MakeFolder) -> None:
    folder = make_folder("127.0.0.1:1")
    done = subprocess.run(
        [sys.executable, "-m", "fedecg_client.cli", "preflight", str(folder), "--json"],
        capture_output=True, text=True, preexec_fn=_full_disk,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["folder"]["code"] == "FECG-601"
    assert checks["folder"]["found"] == "state/ that cannot be written (file too large)"
    assert checks["cohort"]["ok"]
    assert "the report cannot be kept" in done.stderr
    assert list((folder / "state").iterdir()) == []


def _full_disk() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


@pytest.mark.parametrize(
    "content", ["name = ", "name = 3", 'name = "a"\nstore = "s"\ncohort = "c"\nsecret = 1\n']
)
def test_settings_that_cannot_be_used_leave_the_rest_untried(make_folder: MakeFolder, content: str) -> None:
    folder = make_folder("127.0.0.1:1")
    (folder / "site.toml").write_text(content)
    checks = run_preflight(folder)
    assert codes(by_name(checks)) in ({"settings": "FECG-102"}, {"settings": "FECG-103"})
    assert exit_status_of(checks) == 3
    assert by_name(checks)["versions"].ok
    assert {check.name for check in checks if check.ok is None} >= {"key", "tcp", "cohort", "data"}


def test_a_port_that_cannot_be_is_told(make_folder: MakeFolder) -> None:
    folder = make_folder("127.0.0.1:1")
    text = (folder / "site.toml").read_text()
    (folder / "site.toml").write_text(text.replace("127.0.0.1:1", "127.0.0.1:99999"))
    checks = by_name(run_preflight(folder))
    assert checks["proxy"].code == "FECG-124"
    assert checks["tcp"].ok is None
    (folder / "site.toml").write_text(re.sub(r"\[server\].*?(?=\[policy\])", "", text, flags=re.DOTALL))
    checks = by_name(run_preflight(folder))
    assert (checks["proxy"].ok, checks["proxy"].code) == (False, "FECG-643")  # it could join nothing
    assert all(checks[name].ok is None for name in LINE if name != "proxy")


def test_files_from_the_future_betray_a_clock_that_went_back(make_folder: MakeFolder) -> None:
    folder = make_folder("127.0.0.1:1")
    os.utime(folder / "site.toml", (2e9, 2e9))
    assert codes(by_name(run_preflight(folder)))["clock-here"] == "FECG-652"


def test_too_little_room_is_told(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    from fedecg_client.preflight import local

    monkeypatch.setattr(local, "LEAST_DISK_BYTES", 1 << 60)
    monkeypatch.setattr(local, "LEAST_MEMORY_BYTES", 1 << 60)
    checks = by_name(run_preflight(make_folder("127.0.0.1:1")))
    assert (checks["disk"].code, checks["memory"].code) == ("FECG-654", "FECG-655")
    assert "GiB free; expected at least" in checks["disk"].found


def test_the_status_is_that_of_the_worst_kind() -> None:
    data, policy = failed("a", "data", "FECG-227", "", ""), failed("b", "policy", "FECG-656", "", "")
    line, good = failed("c", "connection", "FECG-649", "", ""), passed("d", "data", "")
    assert [exit_status_of(checks) for checks in ([good], [line, policy, data], [line, policy], [line, good])] == [
        0, 3, 4, 1,
    ]  # fmt: skip
