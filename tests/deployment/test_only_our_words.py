"""What goes wrong on the line is told in fedecg's own words: gRPC's lines about itself do not come before them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from loopback import Authority, write_key, write_site

AUTHORITY, OTHER = Authority.new(), Authority.new("another CA")
COMMAND = "import sys; from fedecg_client.cli import main; sys.exit(main(['start', sys.argv[1]]))"


@pytest.mark.parametrize(
    ("certificate", "code"),
    [
        (OTHER.sign("127.0.0.1"), "FECG-644"),
        (AUTHORITY.sign("ecg.example.org"), "FECG-645"),
        (AUTHORITY.sign("127.0.0.1", from_day=-9, to_day=-2), "FECG-646"),
        (None, "FECG-647"),
    ],
    ids=["authority", "name", "expired", "plain-text"],
)
def test_the_first_line_of_an_agent_that_cannot_connect_is_the_message(
    tmp_path: Path, serve: Callable[..., int], certificate: tuple[bytes, bytes] | None, code: str
) -> None:
    folder = write_site(tmp_path / "north", f"127.0.0.1:{serve(certificate)}", AUTHORITY.pem)
    write_key(folder)
    (folder / "state").mkdir(mode=0o700)
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, str(folder)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"{code} ")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
