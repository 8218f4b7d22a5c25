"""A coordinator that was killed in its conclusion neither asks nor trains again what was done, and ends bit-equal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from study_in_process import Killed, to_the_end, without_times

from fedecg.federation.documents import RiskMoments
from fedecg.federation.tasks import EvaluateReply, SurveyTask
from fedecg_server import conclusion as conclusion_module
from fedecg_server.concluded import FOLDER, NOTHING, Concluded, forget, key_of
from fedecg_server.conclusion import Conclusion
from fedecg_server.consortium import Consortium
from fedecg_server.run_folder import RunFolder, read_json
from fedecg_server.shelf import shelve
from fedecg_server.stability import Book
from fedecg_server.study import Study

Make = Callable[..., Study]
FILES = ("rounds.json", "assessment.json", "explanation.json", "baselines.json")
ALL = ["evaluate", "evaluate", "query.assess", "query.survey", "train", "train", "evaluate", "query.explain"]


def study_in(make: Make, sites: Path, folder: Path) -> Study:
    """A study whose conclusion asks everything that there is to ask."""
    run = make(folder=sites, explain_ecgs=10, explain_seeds=1)
    evaluation = run.settings.evaluation.model_copy(update={"baselines": True})
    run.settings = run.settings.model_copy(update={"evaluation": evaluation})
    run.folder = RunFolder(folder, resumable=True)
    run.__post_init__()
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Filled by the first test that needs it: folder and result of a study that nothing stopped."""
    return {"folder": tmp_path_factory.mktemp("whole") / "run"}


def killed_before(patch: pytest.MonkeyPatch, stopped: str) -> None:
    def stop(*_: Any) -> Any:
        raise Killed

    if stopped == "explain":
        patch.setattr(conclusion_module, "joined_models", stop)
    elif stopped == "keeping the repetition":
        patch.setattr(Concluded, "keep_repetition", stop)
    elif stopped == "shipping":
        patch.setattr(conclusion_module, "shipped_baseline", stop)
    else:
        patch.setattr(Conclusion, stopped, stop)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stopped", "asked_again"),
    [
        ("ship", [*ALL[1:], "query.baselines"]),
        ("shipping", [*ALL[2:], "query.baselines"]),
        ("assess", [*ALL[2:], "query.baselines"]),
        ("keeping the repetition", ["train", "train", "query.explain", "query.baselines"]),
        ("explain", ["query.explain", "query.baselines"]),
        ("compare", ["query.baselines"]),
    ],
)
def test_what_was_done_before_a_kill_is_not_done_again_and_the_end_is_bit_equal(
    study: Make,
    tested_sites: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    whole: dict[str, Any],
    stopped: str,
    asked_again: list[str],
) -> None:
    if "result" not in whole:
        whole["result"] = to_the_end(study_in(study, tested_sites, whole["folder"]))
    folder = tmp_path / "resumed"
    with monkeypatch.context() as patch:
        killed_before(patch, stopped)
        with pytest.raises(Killed):
            to_the_end(study_in(study, tested_sites, folder))
    asked: list[str] = []
    honest = Consortium.ask

    def ask(sites: Consortium, kind: str, *arguments: Any, **named: Any) -> Any:
        asked.append(kind)
        return honest(sites, kind, *arguments, **named)

    monkeypatch.setattr(Consortium, "ask", ask)
    result = to_the_end(study_in(study, tested_sites, folder))
    assert asked == asked_again
    assert without_times(result) == without_times(whole["result"])
    weights = [(place / "model" / "weights.safetensors").read_bytes() for place in (folder, whole["folder"])]
    assert weights[0] == weights[1]
    for name in FILES:
        assert without_times(read_json(folder / name)) == without_times(read_json(whole["folder"] / name)), (
            name
        )


def test_a_run_without_a_checkpoint_keeps_nothing_of_its_conclusion(study: Make) -> None:
    run = study()
    run.resume_or_begin()
    run.join()
    run.survive()
    assert not (run.folder.path / "state").exists()
    assert NOTHING.answers("any") is None
    assert NOTHING.repetition(1) is None
    assert not NOTHING.keep_answers("any", {}, {}, {})


REPLY = EvaluateReply(
    site="city", counts={}, validation_events=[1], validation_exp_sums=[2.5],
    risk=RiskMoments(patients=0, sum=0, square_sum=0),
)  # fmt: skip


def test_answers_come_back_for_their_own_run_alone_and_damaged_ones_do_not(tmp_path: Path) -> None:
    mine = Concluded(tmp_path, "mine")
    assert mine.answers("question") is None
    assert mine.keep_answers("question", {"city": REPLY}, {"coast": "FECG-515"}, {"city": "0" * 64})
    found = mine.answers("question")
    assert found is not None
    assert EvaluateReply.model_validate_json(found.replies["city"]) == REPLY
    assert (found.failed, found.received) == ({"coast": "FECG-515"}, {"city": "0" * 64})
    assert Concluded(tmp_path, "another").answers("question") is None
    file = tmp_path / FOLDER / "question.json"
    file.write_bytes(file.read_bytes()[:-5])
    assert mine.answers("question") is None


def test_a_repetition_comes_back_for_its_own_run_alone_and_a_damaged_one_does_not(tmp_path: Path) -> None:
    mine, vector = Concluded(tmp_path, "mine"), np.arange(1000, dtype=np.float32)
    mine.keep_repetition(2, shelve(vector, tmp_path), [], {"survival, seed 2": 1.5})
    found = mine.repetition(2)
    assert found is not None
    assert found[0].seconds == {"survival, seed 2": 1.5}
    assert found[1].whole().tobytes() == vector.tobytes()
    assert mine.repetition(1) is None
    assert Concluded(tmp_path, "another").repetition(2) is None
    file = tmp_path / FOLDER / "seed-2.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\0")
    assert mine.repetition(2) is None


def test_a_new_run_forgets_what_an_earlier_one_had_concluded(tmp_path: Path) -> None:
    Concluded(tmp_path, "mine").keep_answers("question", {}, {}, {})
    assert list((tmp_path / FOLDER).iterdir())
    forget(tmp_path)
    assert not list((tmp_path / FOLDER).iterdir())
    forget(tmp_path / "absent")


def test_two_questions_are_the_same_whatever_they_say_of_earlier_replies() -> None:
    weights = np.ones(5, np.float32)

    def key(kind: str = "query.survey", vector: np.ndarray = weights, **changed: Any) -> str:
        fields = {
            "lock_sha256": "l",
            "stage": "survival",
            "round": 1,
            "bank_sha256": "b",
            "settings": {"a": 1},
        }
        return key_of(kind, SurveyTask(**fields | changed), vector)

    assert key() == key(accepted={"city": "0" * 64}, rejected={"coast": "FECG-545"})
    others = [
        key(kind="evaluate"), key(vector=2 * weights), key(round=2), key(repeat=1), key(settings={"a": 2}),
        key(lock_sha256="m"),
    ]  # fmt: skip
    assert len({key(), *others}) == 7


@pytest.mark.slow
def test_the_book_says_the_same_of_a_repetition_that_is_taken_up(
    study: Make, tested_sites: Path, tmp_path: Path
) -> None:
    run = study_in(study, tested_sites, tmp_path / "run")
    to_the_end(run)
    book = Book(run.questions.concluded, RunFolder(tmp_path / "again"), [], {})

    def train() -> Any:
        raise AssertionError("it was trained already")

    taken = book.once(1, train)
    assert [record.stage for record in book.records] == ["survival, seed 1"] * 2
    stages = [record.stage for record in book.folder.rounds]
    assert stages == ["survival, seed 1", "survival, seed 1", "validation, seed 1"]
    assert book.seconds["survival, seed 1"] == run.seconds["survival, seed 1"]
    assert len(taken) == len(run.trained["survival"])
