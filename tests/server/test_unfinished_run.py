"""What `start` and `resume` look at before anything runs: the study is the same, the list of sites is that of today."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from fedecg.config import StudySettings, load_study
from fedecg.errors import RunError
from fedecg.federation.lock import settings_document
from fedecg.fingerprint import code_fingerprint
from fedecg.progress import Progress
from fedecg_server.backup import RESTORED, back_up, check_not_restored
from fedecg_server.cli import main
from fedecg_server.coordinator import Coordinator, open_coordinator
from fedecg_server.lock import study_lock
from fedecg_server.run_state import RunState, read_state, write_state
from fedecg_server.supervisor import StopRequest, Supervisor, start
from fedecg_server.unfinished import check_same_study
from fedecg_server.verdict import opened

Captured = pytest.CaptureFixture[str]


def begun(coordinator: Coordinator, study: StudySettings | None = None) -> None:
    """A run that has a checkpoint of its first round, written as the study writes it."""
    lock = study_lock(study or coordinator.study(), ["city"])
    state = RunState(
        run="ab", lock=lock, stage="align", done=1, parts={}, survey={}, late_survey={}, best=None, norms={},
        accepted={}, usual_s={}, refused={}, seconds={}, records=[],
    )  # fmt: skip
    write_state(coordinator.run, state, {"align": np.zeros(3, np.float32)})
    (coordinator.run / "study.toml").write_text(coordinator.study_file.read_text())


def change(coordinator: Coordinator) -> None:
    text = coordinator.study_file.read_text()
    coordinator.study_file.write_text(text + "\n[survival]\nrounds = 7\nlearning-rate = 0.5\n")


@pytest.mark.parametrize("resume", [True, False])
def test_a_changed_study_is_refused_before_anything_starts_and_the_run_stays_as_it_is(
    coordinator: Coordinator, resume: bool
) -> None:
    begun(coordinator)
    if resume:
        (coordinator.run / "failed.json").write_text('{"code": "FECG-507", "message": "x"}')
    before = {file: file.read_bytes() for file in coordinator.run.rglob("*") if file.is_file()}
    change(coordinator)
    with pytest.raises(RunError) as refused:
        start(coordinator, resume=resume)
    assert str(refused.value) == (
        "FECG-520 unfinished run: found other settings in study.toml (survival.learning-rate, survival.rounds) than it"
        " began with; expected the same. Nothing was started and nothing is lost. Restore study.toml (run/study.toml is"
        " how it began) and the installed version, or begin a new run: fedecg-server start --new."
    )
    assert refused.value.exit_status == 3  # a service manager must not try it again and again
    assert {file: file.read_bytes() for file in coordinator.run.rglob("*") if file.is_file()} == before
    assert not coordinator.superlink_log.exists()
    assert not coordinator.app_log.exists()


def test_other_code_is_refused_and_the_same_study_is_not(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(coordinator)
    check_same_study(coordinator.run, coordinator.study())
    monkeypatch.setattr("fedecg_server.unfinished.code_fingerprint", lambda: "f" * 64)
    with pytest.raises(
        RunError, match="FECG-520 unfinished run: found other version of fedecg installed than"
    ):
        check_same_study(coordinator.run, coordinator.study())


def test_a_new_run_and_a_finished_one_are_not_compared(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(coordinator)
    change(coordinator)
    (coordinator.run / "result.json").write_text('{"status": "completed"}')
    assert start(coordinator) == 0
    (coordinator.run / "result.json").unlink()
    monkeypatch.setattr(Supervisor, "run", lambda *_: 0)
    assert start(coordinator, new=True) == 0


def test_status_and_lock_say_that_the_run_that_goes_on_is_of_another_study(
    coordinator: Coordinator, capsys: Captured
) -> None:
    begun(coordinator)
    folder, agreed = str(coordinator.folder), study_lock(coordinator.study(), []).sha256()
    times = {"started": "2026-11-21T07:00:00+00:00", "updated": "2026-11-21T08:00:00+00:00"}
    status = {"state": "running", "phase": "align", "lock": agreed, **times}
    (coordinator.run / "status.json").write_text(json.dumps(status))
    assert main(["lock", folder]) == 0
    assert "another lock" not in capsys.readouterr().err
    assert main(["status", folder, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["warnings"] == []
    change(coordinator)
    assert main(["lock", folder, "--sha256"]) == 0
    told = capsys.readouterr()
    assert told.out.strip() == study_lock(coordinator.study(), []).sha256() != agreed
    assert (
        f"warning: the unfinished run has another lock, {agreed}: study.toml, the list of sites" in told.err
    )
    assert "The hash above is that of the next run: fedecg-server start --new" in told.err
    assert main(["lock", folder, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unfinished-run"] == agreed
    assert main(["status", folder]) == 0
    assert (
        "mend     the run has other settings in study.toml (survival.learning-rate, survival.rounds) than it began"
        " with: it cannot be resumed so (FECG-520). run/study.toml is how it began" in capsys.readouterr().out
    )
    (coordinator.run / "result.json").write_text('{"status": "completed"}')
    for command in ("lock", "status"):  # a finished run: the next one may be another
        assert main([command, folder]) == 0
        assert "mend" not in (told := capsys.readouterr()).out
        assert "another lock" not in told.err


def test_a_study_that_cannot_be_read_does_not_keep_status_from_telling_the_rest(
    coordinator: Coordinator, capsys: Captured
) -> None:
    coordinator.study_file.write_text("nme = 1\n")
    assert main(["status", str(coordinator.folder)]) == 0
    told = capsys.readouterr().out
    assert "not-started" in told
    assert "mend     FECG-103 study.toml: found" in told


@pytest.mark.parametrize("resume", [True, False])
def test_a_run_without_its_checkpoint_begins_anew_and_says_so(
    coordinator: Coordinator, capsys: Captured, resume: bool
) -> None:
    begun(coordinator)
    assert opened(coordinator, resume, False, Progress()) is None
    assert capsys.readouterr().err == ""
    (coordinator.run / "state/checkpoint.safetensors").unlink()
    assert opened(coordinator, resume, False, Progress()) is None
    assert "no checkpoint of this run is there (run/state): the study begins anew" in capsys.readouterr().err


def test_a_first_run_is_begun_without_a_word_of_checkpoints(
    coordinator: Coordinator, capsys: Captured
) -> None:
    assert opened(coordinator, False, False, Progress()) is None
    assert capsys.readouterr().err == ""


def test_the_head_that_is_read_is_the_checkpoints_own(coordinator: Coordinator) -> None:
    begun(coordinator)
    found = read_state(coordinator.run)
    assert found is not None
    assert found[0].lock.settings == settings_document(load_study(coordinator.study_file))
    assert found[0].lock.code_fingerprint == code_fingerprint()


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 20, b"\x02" + b"\0" * 7 + b"{}", save({}, {"document": "[1]"})]
)
def test_a_checkpoint_that_cannot_be_read_is_left_to_the_study(
    coordinator: Coordinator, content: bytes
) -> None:
    (coordinator.run / "state").mkdir()
    (coordinator.run / "state/checkpoint.safetensors").write_bytes(content)
    check_same_study(coordinator.run, coordinator.study())


# After a restored backup


def restored(coordinator: Coordinator, folder: Path) -> Coordinator:
    back_up(coordinator, folder / "monday.tar")
    (folder / "again").mkdir(mode=0o700)
    subprocess.run(["tar", "-xpf", folder / "monday.tar", "-C", folder / "again"], check=True)
    return open_coordinator(folder / "again")


@pytest.mark.parametrize("command", ["start", "resume"])
def test_a_restored_folder_lets_nobody_in_before_its_list_was_looked_at(
    coordinator: Coordinator, tmp_path: Path, command: str, capsys: Captured
) -> None:
    sites = '{"sites": {}, "removed": []}'
    assert json.loads(coordinator.sites_file.read_text()) == json.loads(sites)
    again = restored(coordinator, tmp_path)
    assert main([command, str(again.folder)]) == 1
    told = capsys.readouterr().err
    assert "FECG-693 list of sites: found that of a backup of 20" in told
    assert (
        "expected your word that none of them was removed since: a key that was removed must not come back"
        in told
    )
    assert "fedecg-server site remove NAME. Then: fedecg-server start --restored." in told
    assert not again.superlink_log.exists()


def test_somebodys_word_lets_it_start_once_and_for_all(coordinator: Coordinator, tmp_path: Path) -> None:
    again = restored(coordinator, tmp_path)
    check_not_restored(again, True)
    check_not_restored(again, False)
    assert not (again.folder / RESTORED).exists()
    assert not (coordinator.folder / RESTORED).exists()
    check_not_restored(coordinator, False)  # the folder that was saved goes on as before


@pytest.mark.parametrize("content", ["", "[]", '{"made": 3}', "{}"])
def test_a_mark_that_is_damaged_is_still_one(coordinator: Coordinator, content: str) -> None:
    (coordinator.folder / RESTORED).write_text(content)
    with pytest.raises(RunError, match="FECG-693"):
        check_not_restored(coordinator, False)


def test_a_backup_of_a_restored_folder_has_one_mark_of_its_own_day(
    coordinator: Coordinator, tmp_path: Path
) -> None:
    (coordinator.folder / RESTORED).write_text('{"made": "1999"}')
    again = restored(coordinator, tmp_path)
    assert json.loads((again.folder / RESTORED).read_text())["made"].startswith("20")


# What stopped a study


def test_a_study_that_a_site_refused_says_at_its_end_which_and_where_it_is_mended(
    coordinator: Coordinator, capsys: Captured
) -> None:
    failed = {
        "code": "FECG-507",
        "message": "FECG-507 align round 1: found 1 usable replies; expected at least 2.",
    }
    (coordinator.run / "failed.json").write_text(json.dumps(failed))
    sites = [
        {"name": "city", "state": "rejected", "code": "FECG-417"},
        {"name": "coast", "state": "answered", "code": None},
    ]
    times = {"started": "2026-11-21T07:00:00+00:00", "updated": "2026-11-21T08:00:00+00:00"}
    status = {"state": "failed", "phase": "align", **times, "sites": sites}
    (coordinator.run / "status.json").write_text(json.dumps(status))
    assert start(coordinator) == 3
    told = capsys.readouterr().err
    assert (
        "city: FECG-417 a phase that the site's policy does not allow; at that site: fedecg-client doctor"
        in told
    )
    assert "coast" not in told
    assert "goes on with: fedecg-server resume" in told
    for damaged in ("[1]", '{"sites": [1]}', "[" * 100_000):
        (coordinator.run / "status.json").write_text(damaged)
        assert start(coordinator) == 3
        told = capsys.readouterr().err
        assert "goes on with: fedecg-server resume" in told
        assert "city" not in told


def test_a_full_disk_is_called_one_at_every_failure_and_at_the_end(
    coordinator: Coordinator, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    watch = Supervisor(coordinator, Progress(), StopRequest())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (100_000, hard)
    )  # no file grows beyond it: as where there is no room
    try:
        watch._failed("the study ended with FECG-601 (log/app.log)")
        told = capsys.readouterr().err
        assert f"FECG-601 (log/app.log); the disk with {coordinator.folder} is full: " in told
        for _ in range(3):
            watch._failed("the SuperLink ended (log/superlink.log)")
        with pytest.raises(RunError) as ended:
            watch._failed("the SuperLink ended (log/superlink.log)")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    error = ended.value
    assert (error.code, error.exit_status) == (
        "FECG-692",
        1,
    )  # a service starts again, and goes on once there is room
    assert f"coordinator's disk: found the disk with {coordinator.folder} is full: " in str(error)
    assert "a round needs 4 MB; the last failure: the SuperLink ended" in str(error)
    assert "Make room on that disk" in error.fix
    assert not list(coordinator.run.glob(".room*"))
