"""Sites that are added and removed while the SuperLink is away: it knows of them as soon as it is back."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from site_keys import new_key, public

from fedecg.progress import Progress
from fedecg_server import supervisor
from fedecg_server.control import NodeRegistry, key_of
from fedecg_server.coordinator import Coordinator
from fedecg_server.sites import add_site, read_sites, remove_site
from fedecg_server.supervisor import StopRequest, Supervisor

pytestmark = pytest.mark.slow


@pytest.fixture
def watch(coordinator: Coordinator) -> Iterator[Supervisor]:
    """A supervisor that the test drives, with a SuperLink that runs."""
    watch = Supervisor(coordinator, Progress(), StopRequest())
    try:
        watch.link.start()
        watch._register(first=True)
        yield watch
    finally:
        watch.link.stop()


def registered(coordinator: Coordinator) -> set[bytes]:
    """The keys that the SuperLink lets in."""
    with NodeRegistry(coordinator.settings.control_port, coordinator.tls.ca) as registry:
        return set(registry.nodes())


def test_a_removal_and_an_addition_hold_when_the_superlink_is_back(
    watch: Supervisor, coordinator: Coordinator, key_file: Callable[..., Path]
) -> None:
    city, coast = new_key(), new_key()
    assert add_site(coordinator, "city", key_file(public(city))).live
    assert registered(coordinator) == {key_of(city.public_key())}
    assert watch.link.pid is not None
    os.kill(watch.link.pid, signal.SIGKILL)
    watch.link.stop()
    assert not remove_site(coordinator, "city").live
    assert not add_site(coordinator, "coast", key_file(public(coast))).live
    watch._mend()
    assert watch.link.alive
    assert registered(coordinator) == {key_of(coast.public_key())}
    assert read_sites(coordinator).sites["coast"].node_id is not None


def test_a_list_that_the_superlink_did_not_take_is_told_once_and_given_again(
    watch: Supervisor,
    coordinator: Coordinator,
    key_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("fedecg_server.control.ANSWER_S", 0.5)
    monkeypatch.setattr(supervisor, "REGISTER_AGAIN_S", 0.0)
    city = new_key()
    assert watch.link.pid is not None
    watch.link.stop()
    add_site(coordinator, "city", key_file(public(city)))
    watch.link.start()
    os.kill(watch.link.pid, signal.SIGSTOP)
    watch._register()
    watch._mend()
    assert not watch.registered
    assert capsys.readouterr().err.count("FECG-675") == 1
    os.kill(watch.link.pid, signal.SIGCONT)
    monkeypatch.undo()
    watch._mend()
    assert watch.registered
    assert registered(coordinator) == {key_of(city.public_key())}


def test_a_damaged_list_does_not_end_a_study_that_runs(
    watch: Supervisor, coordinator: Coordinator, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = coordinator.sites_file.read_text()
    coordinator.sites_file.write_text("{")
    watch.link.stop()
    watch._mend()
    assert watch.link.alive
    assert "FECG-672 sites.json" in capsys.readouterr().err
    coordinator.sites_file.write_text(whole)
    watch.register_s = 0.0  # its pause is over
    watch._mend()
    assert watch.registered
