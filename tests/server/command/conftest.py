"""A coordinator's folder as `fedecg-server init` makes it, for the tests of its commands."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as forms
from cryptography.hazmat.primitives.asymmetric import ec

from fedecg_server.cli import main


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("command") / "study"
    assert main(["init", str(folder), "--name", "ecg.example.org", "--port", "19092"]) == 0
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "study")
    text = (tmp_path / "study/server.toml").read_text()
    (tmp_path / "study/server.toml").write_text(text.replace("control-port = 9093", "control-port = 1"))
    return tmp_path / "study"


@pytest.fixture
def public_key(tmp_path: Path) -> Callable[[str], str]:
    def write(name: str) -> str:
        key = ec.generate_private_key(ec.SECP384R1()).public_key()
        path = tmp_path / f"{name}.pub"
        path.write_bytes(key.public_bytes(forms.Encoding.OpenSSH, forms.PublicFormat.OpenSSH))
        return str(path)

    return write
