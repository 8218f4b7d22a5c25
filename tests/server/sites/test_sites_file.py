"""sites.json on disk: removals, damage, full disks, many commands at once."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from site_keys import new_key, public

from fedecg.errors import FedecgError, RunError, SettingsError
from fedecg_server.coordinator import Coordinator
from fedecg_server.sites import add_site, read_sites, register_all, remove_site


def test_a_site_that_is_not_in_the_list_cannot_be_removed(coordinator: Coordinator) -> None:
    with pytest.raises(RunError, match="FECG-676 site: found none of that name among 0"):
        remove_site(coordinator, "city")


def test_a_removed_site_leaves_only_the_fingerprint_of_its_key(
    coordinator: Coordinator, key_file: Callable[..., Path]
) -> None:
    entry = add_site(coordinator, "city", key_file()).entry
    remove_site(coordinator, "city")
    assert json.loads(coordinator.sites_file.read_text()) == {"sites": {}, "removed": [entry.fingerprint]}
    assert list(coordinator.keys.iterdir()) == []
    add_site(coordinator, "city", key_file())  # a new key under the old name


def test_a_key_changed_by_hand_is_noticed(coordinator: Coordinator, key_file: Callable[..., Path]) -> None:
    add_site(coordinator, "city", key_file())
    (coordinator.keys / "city.pub").write_bytes(public(new_key()))
    with pytest.raises(
        SettingsError, match="FECG-129 key of city: found another fingerprint than in sites.json"
    ):
        register_all(coordinator)
    remove_site(coordinator, "city")


def test_a_key_that_is_missing_or_damaged_is_told_with_its_site_and_can_be_put_back(
    coordinator: Coordinator, key_file: Callable[..., Path]
) -> None:
    sent = key_file()
    add_site(coordinator, "city", sent)
    kept = coordinator.keys / "city.pub"
    for damage, found in (
        (kept.unlink, "no such file"),
        (lambda: kept.write_text("x"), "a line of another kind"),
    ):
        damage()
        with pytest.raises(
            SettingsError, match=f"FECG-127 key of city: found {found}.*Put keys/city.pub back: from a backup"
        ):
            register_all(coordinator)
    kept.write_bytes(sent.read_bytes())  # as the site has sent it
    with pytest.raises(RunError, match="FECG-675"):  # no SuperLink runs: the keys were in order
        register_all(coordinator)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"sites": []}',
        '{"sites": {"a/b": {"key": "keys/a.pub", "fingerprint": "SHA256:' + "A" * 43 + '"}}}',
        '{"sites": {"a": {"key": "keys/a.pub", "fingerprint": "none"}}}',
        '{"sites": {"a": {"key": "../../etc/passwd", "fingerprint": "SHA256:' + "A" * 43 + '"}}}',
        "[" * 100_000,
    ],
)
def test_a_damaged_list_is_refused_and_not_written_over(
    coordinator: Coordinator, key_file: Callable[..., Path], text: str
) -> None:
    coordinator.sites_file.write_text(text)
    for step in (lambda: read_sites(coordinator), lambda: add_site(coordinator, "city", key_file())):
        with pytest.raises(RunError, match="FECG-672 sites.json: found .*Restore it from a backup"):
            step()
    assert coordinator.sites_file.read_text() == text


def test_a_list_that_another_command_is_changing_is_waited_for_and_not_for_ever(
    coordinator: Coordinator, key_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedecg_server.sites.LOCK_S", 0.2)
    with (coordinator.state / "sites.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="FECG-678 list of sites: found another command"):
            add_site(coordinator, "city", key_file())
    add_site(coordinator, "city", key_file())


def test_a_full_disk_is_a_coded_error_and_leaves_the_list_as_it_was(
    coordinator: Coordinator, key_file: Callable[..., Path]
) -> None:
    add_site(coordinator, "city", key_file())
    before, key = coordinator.sites_file.read_text(), key_file(name="coast.pub")
    resource_limited = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from fedecg_server.coordinator import open_coordinator; from fedecg_server.sites import add_site\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "add_site(open_coordinator(sys.argv[1]), 'coast', Path(sys.argv[2]))"
    )
    words = [sys.executable, "-c", resource_limited, str(coordinator.folder), str(key)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 1
    assert "FECG-601 file coast.pub: found file too large" in done.stderr
    assert coordinator.sites_file.read_text() == before
    assert [file.name for file in coordinator.keys.iterdir()] == ["city.pub"]


def test_adding_many_sites_at_once_loses_none(
    coordinator: Coordinator, key_file: Callable[..., Path]
) -> None:
    files = {f"site-{number}": key_file(name=f"{number}.pub") for number in range(8)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda item: add_site(coordinator, *item), files.items()))
    assert set(read_sites(coordinator).sites) == set(files)


def test_every_refusal_leaves_a_list_that_can_be_read(coordinator: Coordinator, tmp_path: Path) -> None:
    with pytest.raises(FedecgError):
        add_site(coordinator, "city", tmp_path / "absent.pub")
    assert read_sites(coordinator).sites == {}
