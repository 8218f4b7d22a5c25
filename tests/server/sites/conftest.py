"""A coordinator's folder and key files, for the tests of the list of sites."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from site_keys import free_port, new_key, public

from fedecg_server.coordinator import Coordinator, create_coordinator, open_coordinator


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sites") / "coordinator"
    create_coordinator(folder, "127.0.0.1", free_port())
    return folder


@pytest.fixture
def coordinator(made: Path, tmp_path: Path) -> Coordinator:
    """A folder of its own, with free ports."""
    shutil.copytree(made, tmp_path / "coordinator")
    file = tmp_path / "coordinator" / "server.toml"
    text = file.read_text().replace("control-port = 9093", f"control-port = {free_port()}")
    file.write_text(text)
    return open_coordinator(file.parent)


@pytest.fixture
def key_file(tmp_path: Path) -> Callable[..., Path]:
    """Write a site's node.pub; without content, of a new key."""

    def write(content: bytes | None = None, name: str = "node.pub") -> Path:
        path = tmp_path / name
        path.write_bytes(public(new_key()) + b" somebody@somewhere\n" if content is None else content)
        return path

    return write
