"""The unit files of both services: right, and hardened."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from client_words import ROOT


@pytest.mark.parametrize("role", ["client", "server"])
def test_the_service_files_are_right_and_hardened(role: str, tmp_path: Path) -> None:
    text = (ROOT / f"docs/systemd/fedecg-{role}.service").read_text()
    (command,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    assert command.split()[0] == f"/opt/fedecg/bin/fedecg-{role}"
    assert command.split()[1] == "start"
    for line in ("ProtectSystem=strict", "NoNewPrivileges=true", "PrivateTmp=true", "Restart=on-failure",
                 "ProtectHome=true", "KillMode=mixed", "CapabilityBoundingSet=",
                 f"ReadWritePaths={command.split()[2]}"):  # fmt: skip
        assert f"\n{line}\n" in text
    (kept,) = re.findall(r"^RestartPreventExitStatus=(.*)$", text, re.MULTILINE)
    assert {"2", "3", "4"} <= set(kept.split())
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")
    unit = tmp_path / f"fedecg-{role}.service"
    unit.write_text(text.replace("/opt/fedecg/bin/fedecg-", "/bin/true fedecg-"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    graded = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", unit], capture_output=True, text=True
    )
    assert float(re.findall(r"Overall exposure level for \S+: ([0-9.]+)", graded.stdout)[0]) < 2.5
