"""Marks planted in sites' tables (ids, names, dates, reports, paths): found in nothing that leaves, whatever fails."""

from __future__ import annotations

import json
import random
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import tomli_w
from planted_sites import (
    BORN,
    MARKS,
    NAME,
    PATIENT,
    REPORT,
    STORE,
    STUDY,
    TABLE,
    Heard,
    found,
    hashed_ids,
    plant,
    run_planted,
    written_forms,
)

import fedecg
import fedecg_client
from fedecg.config import StudySettings, load_study, parse_settings
from fedecg_client.cli import main as client_main
from fedecg_simulations import engine, runner
from fedecg_simulations.cli import main as simulate

SITES = {"city": 60, "coast": 50, "valley": 50}
SECRET = f"{PATIENT}coast00007 {NAME} {BORN} {REPORT}"
MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "masked": {"privacy": {"sums": "masked"}},
    "noised": {
        "privacy": {"mode": "sample", "sums": "noised", "sampling-rate": 0.2, "hazard-every": 2},
        "site-defaults": {"epsilon": 200.0, "delta": 1e-5},
    },
}


def settings_of(mode: str, store: Path) -> StudySettings:
    tree: dict[str, dict[str, Any]] = {
        "data": {"store": str(store), "test-patients": 45, "sites": SITES},
        "signals": {"samples": 128},
        "model": {"size": "small"},
        "align": {"rounds": 1, "local-steps": 1, "batch-size": 16},
        "survival": {"rounds": 1, "local-steps": 1, "batch-size": 16, "horizon-days": 3653.0},
        "evaluation": {"explain": False, "comparison": False, "bootstrap": 0},
        "federation": {"deadline-s": 1.0, "patience-s": 0.0, "grace-s": 0.1},
    }
    for name, keys in MODES[mode].items():
        tree[name] = {**tree.get(name, {}), **keys}
    return parse_settings(StudySettings, {"name": STUDY, "seed": 100, **tree})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


Whole = tuple[Heard, Path]


def whole_study(mode: str, store: Path, folder: Path) -> Whole:
    """`fedecg-simulate run` with marked sites: what travelled and was said, and the folder of the run."""
    settings, heard = settings_of(mode, store), Heard()
    file, write_sites = folder / "study.toml", runner.write_sites
    file.write_text(tomli_w.dumps(settings.model_dump(by_alias=True, exclude_none=True)))

    def write_planted(*arguments: Any) -> None:
        write_sites(*arguments)
        for site in arguments[3].glob("*/site.toml"):
            plant(site.parent)

    with pytest.MonkeyPatch.context() as patch, heard.recording():
        patch.setattr(runner, "write_sites", write_planted)
        patch.setattr(engine, "client_app", heard.listen())
        assert simulate(["run", str(file), "--out", str(folder / "run")]) == 0
    return heard, folder / "run"


def settings_of_run(out: Path) -> StudySettings:
    return load_study(out / "study.toml")


@pytest.fixture(
    scope="module",
    params=["plain", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("masked", "noised"))],
)
def whole(request: pytest.FixtureRequest, store: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return whole_study(request.param, store, tmp_path_factory.mktemp(request.param))


def test_nothing_of_a_patient_is_in_what_a_whole_study_sends_says_and_writes(whole: Whole) -> None:
    heard, out = whole
    assert found(heard, out) == []
    written = {file.name for file in out.rglob("*") if file.is_file()}
    assert {"report.html", "summary.json", "rounds.json", "egress.jsonl", "site.toml", TABLE} <= written
    assert ("ledger.sqlite" in written) == bool(settings_of_run(out).site_defaults.epsilon)
    assert json.loads((out / "summary.json").read_text())["status"] == "completed"
    assert len(heard.messages) >= 2 * 3 * 5
    assert "joins a study" in heard.said.getvalue()
    assert not heard.failed


def test_the_marks_are_where_they_were_planted_and_would_be_found(whole: Whole) -> None:
    _, out = whole
    for site in SITES:
        table = (out / "sites" / site / TABLE).read_text()
        assert all(mark in table for mark in MARKS[:3])
        assert (out / "sites" / site / STORE / "store.json").exists()
    for told in (SECRET, SECRET.encode().hex(), json.dumps({"patient": SECRET}), f"/data/{TABLE}"):
        heard_it = Heard(messages=[told.encode()])
        assert found(heard_it) == ["message 0"]
    digest = sorted(hashed_ids((out,)))[0]
    assert found(Heard(messages=[b"..." + digest + b"..."]), out) == ["message 0"]
    assert min(len(form) for mark in MARKS for form in written_forms(mark)) >= 8


# Whatever fails.
@pytest.fixture(scope="module")
def prepared(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of marked sites that no study has asked yet."""
    from private_studies import sites_of

    folder = sites_of(settings_of("noised", store), tmp_path_factory.mktemp("prepared") / "sites")
    for site in SITES:
        plant(folder / site)
    return folder


@pytest.fixture
def sites(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "sites", symlinks=True))


def rows_of(site: Path) -> list[str]:
    return (site / TABLE).read_text().splitlines()


def change_cell(site: Path, column: str, value: str) -> None:
    lines = rows_of(site)
    header = lines[0].split(",")
    cells = lines[3].split(",")
    cells[header.index(column)] = value
    (site / TABLE).write_text("\n".join([*lines[:3], ",".join(cells), *lines[4:]]) + "\n")


def own_store(site: Path) -> Path:
    """The site's store as files of its own, to be damaged."""
    real = (site / STORE).resolve()
    (site / STORE).unlink()
    shutil.copytree(real, site / STORE)
    return site / STORE


def cut_signals(site: Path) -> None:
    largest = max(
        (file for file in own_store(site).iterdir() if file.is_file()), key=lambda f: f.stat().st_size
    )
    largest.write_bytes(largest.read_bytes()[:1000])


DAMAGES: dict[str, Callable[[Path], None]] = {
    "an id as a number of days": lambda site: change_cell(site, "follow_up_days", SECRET),
    "a name as an age": lambda site: change_cell(site, "age_years", NAME),
    "a report as codes": lambda site: change_cell(site, "codes", f"{REPORT} {NAME}"),
    "a name as a part": lambda site: change_cell(site, "part", NAME),
    "a name as a record": lambda site: change_cell(site, "record", NAME),
    "a record that is not there": lambda site: change_cell(site, "record", "999999"),
    "a patient in two parts": lambda site: change_cell(site, "patient", rows_of(site)[-1].split(",")[1]),
    "a date as an event": lambda site: change_cell(site, "event", BORN),
    "a column that is missing": lambda site: (site / TABLE).write_text(
        "\n".join(rows_of(site)).replace("follow_up_days", NAME, 1)
    ),
    "bytes that are no text": lambda site: (site / TABLE).write_bytes(
        (site / TABLE).read_bytes()[:900] + b"\xff\xfe" + SECRET.encode()
    ),
    "no table": lambda site: (site / TABLE).unlink(),
    "no store": lambda site: (site / STORE).unlink(),
    "a store that was cut": cut_signals,
    "settings that are none": lambda site: (site / "site.toml").write_text(
        f'name = "coast"\nstore = "{STORE}"\ncohort = "{TABLE}"\nkohort = "{TABLE}"\n[privacy]\nepsilon = "-1"\n'
    ),
}


QUICK = ("a report as codes",)


@pytest.mark.parametrize(
    "damage", [one if one in QUICK else pytest.param(one, marks=pytest.mark.slow) for one in DAMAGES]
)
def test_a_damaged_site_says_nothing_of_its_patients(
    store: Path, sites: Path, tmp_path: Path, damage: str
) -> None:
    DAMAGES[damage](sites / "coast")
    heard = run_planted(settings_of("plain", store), sites, tmp_path / "run")
    assert heard.failed or heard.ended or damage == "a column that is missing"
    assert found(heard, tmp_path) == []


class PlantedError(Exception):
    """A fault with a patient's row in its text, in its arguments and in what it was raised from."""


@contextmanager
def fault(at: int, code_of: Callable[[str], bool]) -> Iterator[None]:
    """The n-th call of a function of fedecg raises, with a patient's row in the text; nothing after it."""
    calls = 0

    def watch(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        if event != "call" or not code_of(frame.f_code.co_filename):
            return
        calls += 1
        if calls == at:
            sys.settrace(None)
            row = {"patient": SECRET, "born": BORN}  # in the frame, as a traceback with locals would show
            try:
                raise KeyError(SECRET)
            except KeyError as error:
                raise PlantedError(SECRET, row) from error

    sys.settrace(watch)  # type: ignore[arg-type]
    try:
        yield
    finally:
        sys.settrace(None)


WORK = tuple(str(Path(package.__path__[0])) for package in (fedecg, fedecg_client))
APP = str(Path(fedecg_client.__path__[0]) / "app.py")


def at_work(file: str) -> bool:
    """Whatever the handlers call: what they do themselves when all has failed is not broken here."""
    return file.startswith(WORK) and file != APP and "errors" not in file


@pytest.mark.slow
@pytest.mark.parametrize("mode", [*MODES])
@pytest.mark.parametrize("seed", range(4))
def test_a_fault_at_any_call_with_a_patients_row_in_it_says_nothing_of_it(
    store: Path, sites: Path, tmp_path: Path, mode: str, seed: int
) -> None:
    """Every task of one site fails somewhere else: early, deep in training, in its outbox or record."""
    rng = random.Random(seed)
    heard = run_planted(
        settings_of(mode, store),
        sites,
        tmp_path / "run",
        lambda site, _kind: (
            fault(rng.choice([rng.randrange(1, 60), rng.randrange(60, 4000)]), at_work)
            if site == "coast"
            else nothing()
        ),
    )
    assert "FECG-599" in heard.failed
    assert "PlantedError at" in heard.said.getvalue()
    assert found(heard, tmp_path) == []


@contextmanager
def nothing() -> Iterator[None]:
    yield


@pytest.mark.slow
def test_a_fault_that_is_told_with_its_text_would_be_found(
    store: Path, sites: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same with a site that logs tracebacks, as broken on purpose."""
    monkeypatch.setattr("fedecg_client.app._place", lambda error: repr(error))
    heard = run_planted(
        settings_of("plain", store),
        sites,
        tmp_path / "run",
        lambda site, kind: fault(40, at_work) if site == "coast" and kind == "query.join" else nothing(),
    )
    assert heard.failed == ["FECG-599"]
    assert found(heard, tmp_path) == ["what was said"]


@contextmanager
def full_disk() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.slow
@pytest.mark.parametrize("mode", [*MODES])
def test_a_full_disk_says_nothing_of_the_patients(
    store: Path, sites: Path, tmp_path: Path, mode: str
) -> None:
    heard = run_planted(
        settings_of(mode, store),
        sites,
        tmp_path / "run",
        lambda site, kind: full_disk() if site == "coast" and kind != "query.join" else nothing(),
    )
    assert heard.failed
    assert found(heard, tmp_path) == []


COMMANDS = (
    ["preflight"],
    ["preflight", "--json"],
    ["doctor"],
    ["status"],
    ["studies"],
    ["egress", "--json"],
    ["ledger"],
)


@pytest.mark.parametrize(
    "damage", ["none", "an id as a number of days", "a report as codes", "no table", "no store"]
)
def test_commands_at_the_site_show_no_patient(
    sites: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """They may name the site's own files: whoever reads them works there."""
    if damage != "none":
        DAMAGES[damage](sites / "coast")
    shared = sites / "shared.json"
    for command, *options in [*COMMANDS, ["preflight", "--share", str(shared)]]:
        with suppress(SystemExit):
            client_main([command, str(sites / "coast"), *options])
    shown = "".join(capsys.readouterr()) + (shared.read_text() if shared.exists() else "")
    assert len(shown) > 500
    assert not [mark for mark in (PATIENT, NAME, REPORT, BORN) if mark in shown]
