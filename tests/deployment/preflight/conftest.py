"""Sites' folders with data, for the tests of preflight and doctor."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from loopback import Authority, SuperLink
from site_checks import RECORDS, SECRET, MakeFolder, cohort, recording

from fedecg.cohort import write_cohort
from fedecg.config import SignalSettings
from fedecg.signals import build_store
from fedecg_client.cli import main
from fedecg_client.keys import make_key

PROXIES = ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table and a store that belong together, in a folder whose name must not leave."""
    folder = tmp_path_factory.mktemp(SECRET)
    records = [recording(seed) for seed in range(sum(RECORDS.values()))]
    store = build_store(folder, "k" * 64, SignalSettings(samples=256), records, powerline="none")
    store.folder.rename(folder / "store")
    write_cohort(cohort(), folder / "cohort.csv")
    return folder


@pytest.fixture(scope="module")
def member(tmp_path_factory: pytest.TempPathFactory, superlink: SuperLink) -> tuple[int, Path]:
    """A key on the list: its node id, and where it lies."""
    key = tmp_path_factory.mktemp("member") / "node.key"
    make_key(key)
    return superlink.register(key.with_suffix(".pub")), key


@pytest.fixture
def make_folder(tmp_path: Path, data: Path, authority: Authority) -> MakeFolder:
    """A site's folder, made by the command, with data of its own; with a key that is on the list, if one is given."""

    def make(address: str, name: str = "north", key: Path | None = None) -> Path:
        given = tmp_path / "given.crt"
        given.write_bytes(authority.pem)
        shutil.copytree(data, tmp_path / SECRET)
        line = ["init", str(tmp_path / name), "--name", name, "--server", address, "--ca", str(given)]
        line += [
            "--cohort",
            str(tmp_path / SECRET / "cohort.csv"),
            "--store",
            str(tmp_path / SECRET / "store"),
        ]
        assert main([*line, "--study", "hf"]) == 0
        if key:
            shutil.copy(key, tmp_path / name / "node.key")
            shutil.copy(key.with_suffix(".pub"), tmp_path / name / "node.pub")
        return tmp_path / name

    return make
