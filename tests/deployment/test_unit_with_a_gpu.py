"""The comment in the site's unit file that lets a GPU through: right, too, once it is put in the place of its line."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).resolve().parents[2] / "docs" / "systemd" / "fedecg-client.service"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_the_variant_with_a_gpu_is_a_right_unit_file(tmp_path: Path) -> None:
    text = UNIT.read_text().replace("/opt/fedecg/bin/fedecg-", "/bin/true fedecg-")
    with_gpu, number = re.subn(
        r"^#   (?=PrivateDevices|DevicePolicy|DeviceAllow)", "", text, flags=re.MULTILINE
    )
    assert number == 5
    assert with_gpu.count("\nPrivateDevices=true\n") == 1
    unit = tmp_path / "fedecg-client.service"
    unit.write_text(with_gpu.replace("\nPrivateDevices=true\n", "\n"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
