"""A coordinator that was stopped anywhere goes on from its checkpoint and ends with the same bits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from study_in_process import Killed, to_the_end, without_times

from fedecg.errors import FederationError, RunError
from fedecg_server import study_state as state_module
from fedecg_server.conclusion import Conclusion
from fedecg_server.questions import Questions
from fedecg_server.run_folder import RunFolder, read_json
from fedecg_server.run_state import STATE, read_state
from fedecg_server.stage import SurvivalRounds
from fedecg_server.study import Study

Make = Callable[..., Study]


def resumable(make: Make, folder: Path, **arguments: Any) -> Study:
    """A study whose folder keeps a checkpoint."""
    run = make(**arguments)
    run.folder = RunFolder(folder, resumable=True)
    run.journal.folder = folder
    return run


def weights(folder: Path) -> bytes:
    return (folder / "model" / "weights.safetensors").read_bytes()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Filled by the first test that needs it: folder and result."""
    return {"folder": tmp_path_factory.mktemp("uninterrupted") / "run"}


def reference(study: Make, uninterrupted: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    if "result" not in uninterrupted:
        uninterrupted["result"] = to_the_end(resumable(study, uninterrupted["folder"]))
    return uninterrupted["folder"], uninterrupted["result"]


@pytest.mark.parametrize("saved", [1, 2, 3])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_study_stopped_around_any_checkpoint_ends_bit_equal(
    study: Make,
    uninterrupted: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    saved: int,
    moment: str,
) -> None:
    whole, expected = reference(study, uninterrupted)
    honest, calls = state_module.write_state, [0]

    def stopping(*arguments: Any) -> None:
        calls[0] += 1
        if calls[0] == saved and moment == "before":
            raise Killed
        honest(*arguments)
        if calls[0] == saved:
            raise Killed

    folder = tmp_path / "resumed"
    with monkeypatch.context() as patch:
        patch.setattr(state_module, "write_state", stopping)
        with pytest.raises(Killed):
            to_the_end(resumable(study, folder))
    result = to_the_end(resumable(study, folder))
    assert weights(folder) == weights(whole)
    assert without_times(result) == without_times(expected)
    for name in ("rounds.json", "assessment.json"):
        assert without_times(read_json(folder / name)) == without_times(read_json(whole / name))


def test_a_study_stopped_in_its_last_evaluation_ends_bit_equal(
    study: Make, uninterrupted: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, expected = reference(study, uninterrupted)

    def stopping(*_: Any) -> None:
        raise Killed

    folder = tmp_path / "resumed"
    with monkeypatch.context() as patch:
        patch.setattr(Conclusion, "assess", stopping)
        with pytest.raises(Killed):
            to_the_end(resumable(study, folder))
    assert without_times(to_the_end(resumable(study, folder))) == without_times(expected)
    assert weights(folder) == weights(whole)


def test_the_run_keeps_its_name_and_the_events_tell_of_both_sessions(
    study: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopping(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Questions, "survey", stopping)
        with pytest.raises(Killed):
            to_the_end(resumable(study, tmp_path / "two"))
    first = read_json(tmp_path / "two" / "status.json")
    run = resumable(study, tmp_path / "two")
    run.resume_or_begin()
    assert run.run == first["run"]
    events = (tmp_path / "two" / "events.jsonl").read_text()
    assert '"event": "start"' in events
    assert '"event": "resume"' in events


def test_a_run_goes_on_without_a_site_that_is_not_back_and_says_so(
    study: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint knows the site's events; its node is away when the coordinator starts again."""

    def stopping(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(SurvivalRounds, "attempt", stopping)
        with pytest.raises(Killed):
            to_the_end(resumable(study, tmp_path / "two"))
    run = resumable(study, tmp_path / "two")
    everybody = list(run.grid.get_node_ids())
    monkeypatch.setattr(run.grid, "get_node_ids", lambda: everybody[:2])
    result = to_the_end(run)
    assert result["status"] == "completed-partial"
    survival = [record for record in run.records if record.stage == "survival"]
    assert [record.missing for record in survival] == [["valley"]] * 2
    assert result["refused"] == {"valley": "no answer"}


def test_a_site_of_the_lock_that_never_comes_makes_the_study_partial(study: Make, tmp_path: Path) -> None:
    run = resumable(study, tmp_path / "two")
    everybody = list(run.grid.get_node_ids())
    names = dict(zip([*everybody, 99], ["city", "coast", "valley", "harbour"], strict=True))
    run.names = lambda: names
    run.settings = run.settings.model_copy(
        update={"federation": run.settings.federation.model_copy(update={"grace_s": 0.1, "patience_s": 5.0})}
    )
    run.__post_init__()
    result = to_the_end(run)
    assert result["status"] == "completed-partial"
    assert all("harbour" in record.missing for record in run.records)


def test_a_run_is_not_resumed_with_other_settings(study: Make, tmp_path: Path) -> None:
    run = resumable(study, tmp_path / "run")
    run.resume_or_begin()
    run.join()
    run.align()
    other = resumable(study, tmp_path / "run", explain_ecgs=5)
    with pytest.raises(RunError, match="FECG-520 checkpoint of the run: found other settings"):
        other.resume_or_begin()


def test_a_damaged_checkpoint_is_refused_and_not_silently_begun_anew(study: Make, tmp_path: Path) -> None:
    run = resumable(study, tmp_path / "run")
    run.resume_or_begin()
    run.join()
    run.align()
    file = tmp_path / "run" / STATE
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:-5] + b"xxxxx", b"", b"\xff" * 100):
        file.write_bytes(damaged)
        with pytest.raises(RunError, match="FECG-546 checkpoint of the run.*from a backup"):
            resumable(study, tmp_path / "run").resume_or_begin()


def test_a_run_that_ended_with_a_code_says_so_and_goes_on_once_its_cause_is_mended(
    study: Make, tmp_path: Path
) -> None:
    run = resumable(study, tmp_path / "run")
    run.folder.fail(FederationError("FECG-507", "x", found="y", expected="z"))
    assert read_json(tmp_path / "run" / "failed.json")["code"] == "FECG-507"
    result = to_the_end(run)
    assert result["status"] == "completed"
    assert not (tmp_path / "run" / "failed.json").exists()


def test_a_simulation_keeps_no_checkpoint(study: Make) -> None:
    run = study()
    to_the_end(run)
    assert read_state(run.folder.path) is None
    assert np.isfinite(run.trained["survival"]).all()
