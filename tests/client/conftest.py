"""A site's folder as `fedecg-client init` makes it, for the tests of its commands."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from client_words import words

from fedecg_client.cli import main
from fedecg_server.certificates import TlsFiles, create_tls


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """The certificates of a coordinator, made by its own code."""
    files = TlsFiles(tmp_path_factory.mktemp("coordinator") / "tls")
    create_tls(files, "127.0.0.1")
    return files


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tls: TlsFiles) -> Path:
    folder = tmp_path_factory.mktemp("command") / "site"
    assert main(words(folder, tls, "--study", "hf", "other")) == 0
    return folder


@pytest.fixture
def site(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "site"))
