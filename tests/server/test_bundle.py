"""The bundle that is submitted: the same bytes and the same hash as Flower's own `flwr build` gives."""

import hashlib
import io
import os
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

from fedecg.federation.bundle import bundle_bytes, bundle_files, bundle_sha256


def test_our_bytes_are_those_that_flowers_own_build_makes(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name, text in bundle_files().items():
        (folder / name).write_text(text)
    environment = os.environ | {
        "FLWR_HOME": str(tmp_path / "home"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }
    flwr = Path(sys.executable).with_name("flwr")
    subprocess.run([flwr, "build", "--app", folder], cwd=tmp_path, env=environment, check=True)
    (built,) = tmp_path.glob("*.fab")
    assert built.read_bytes() == bundle_bytes()
    assert hashlib.sha256(built.read_bytes()).hexdigest() == bundle_sha256()
    assert built.name == f"fedecg.fedecg.{version('fedecg').replace('.', '-')}.{bundle_sha256()[:8]}.fab"


def test_the_bundle_carries_no_code_and_asks_for_nothing_to_be_installed() -> None:
    with zipfile.ZipFile(io.BytesIO(bundle_bytes())) as archive:
        assert archive.namelist() == ["pyproject.toml", ".info/CONTENT"]
        settings = tomllib.loads(archive.read("pyproject.toml").decode())
    assert "dependencies" not in settings["project"]
    assert settings["project"]["version"] == version("fedecg")
    assert settings["tool"]["flwr"]["app"]["components"] == {
        "serverapp": "fedecg_server.app:app",
        "clientapp": "fedecg_client.app:app",
    }


def test_importing_the_bundle_does_not_load_flower() -> None:
    look = "import sys, fedecg.federation.bundle; sys.exit('flwr' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", look], check=False).returncode == 0
