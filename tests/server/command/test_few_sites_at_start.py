"""`fedecg-server start` of a study with differential privacy of sites: too few are told before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from server_words import Captured

from fedecg_server import supervisor
from fedecg_server.cli import main
from fedecg_server.coordinator import Coordinator


@pytest.fixture
def started(folder: Path, public_key: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """One site, mode client; whether the supervisor was called, to resume or to start."""
    study = folder / "study.toml"
    text = study.read_text()
    assert text.count('mode = "none" ') == 1
    assert text.count('baseline = "shared" ') == 1
    text = text.replace('baseline = "shared" ', 'baseline = "site" ')
    study.write_text(text.replace('mode = "none" ', 'mode = "client" '))
    main(["site", "add", "city", "--key", public_key("city"), "--dir", str(folder)])
    calls: list[bool] = []

    def start(coordinator: Coordinator, resume: bool, new: bool) -> int:
        calls.append(resume)
        return 0

    monkeypatch.setattr(supervisor, "start", start)
    return calls


def test_one_site_is_refused_before_anything_runs(
    folder: Path, started: list[bool], capsys: Captured
) -> None:
    assert main(["start", str(folder)]) != 0
    told = capsys.readouterr().err
    assert 'FECG-563 sites of a study with privacy.mode = "client": found 1; expected at least 50.' in told
    assert started == []


def test_one_site_is_forced_with_a_warning(folder: Path, started: list[bool], capsys: Captured) -> None:
    study = folder / "study.toml"
    study.write_text(study.read_text().replace("client-force = false", "client-force = true"))
    assert main(["start", str(folder)]) == 0
    told = capsys.readouterr().err
    assert 'warning: privacy.mode = "client" with 1 of at least 50 sites, forced: single patients' in told
    assert started == [False]


def test_a_run_that_goes_on_keeps_to_the_sites_of_its_own_lock(folder: Path, started: list[bool]) -> None:
    """Of fifty, one may have been removed since it began."""
    assert main(["resume", str(folder)]) == 0
    assert started == [True]
