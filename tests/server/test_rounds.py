"""Bad replies are named, left out, and the round goes on; too few good ones end the study with a code."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Error, Message
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode

from fedecg.cohort import read_cohort, write_cohort
from fedecg.errors import FederationError
from fedecg.federation.messages import pack, unpack
from fedecg.federation.sums import AssessReply
from fedecg.federation.tasks import EvaluateReply, Failure, JoinReply, SurveyReply, TrainReply
from fedecg.model import load_model
from fedecg.training import SiteData
from fedecg_server.run_folder import read_json
from fedecg_server.study import Study

Make = Callable[..., Study]


def with_vector(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Message], Message]:
    def tamper(reply: Message) -> Message:
        document, vector = unpack(reply.content, TrainReply)
        assert vector is not None
        reply.content = pack(document, change(vector.copy()))
        return reply

    return tamper


def with_reply(kind: type, **changes: object) -> Callable[[Message], Message]:
    def tamper(reply: Message) -> Message:
        document, vector = unpack(reply.content, kind)
        reply.content = pack(document.model_copy(update=changes), vector)
        return reply

    return tamper


def spoil_one(vector: np.ndarray) -> np.ndarray:
    vector[3] = np.nan
    return vector


def break_sums(reply: Message) -> Message:
    document, vector = unpack(reply.content, TrainReply)
    if document.sums is not None:
        counts = document.sums.validation.model_copy(update={"concordant": 10**6})
        sums = document.sums.model_copy(update={"validation": counts})
        reply.content = pack(document.model_copy(update={"sums": sums}), vector)
    return reply


def fail(reply: Message) -> Message:
    reply.content = pack(Failure(site="coast", failed="FECG-323"))
    return reply


def flower_error(reply: Message) -> Message:
    """What a SuperNode answers when the site's app has crashed."""
    reply.__dict__["_content"], reply.__dict__["_error"] = None, Error(ErrorCode.CLIENT_APP_CRASHED, "x")
    return reply


@pytest.mark.parametrize(
    ("tamper", "code"),
    [
        (with_vector(spoil_one), "FECG-505"),
        (with_vector(lambda vector: vector[:-1]), "FECG-504"),
        (with_reply(TrainReply, round=7), "FECG-509"),
        (with_reply(TrainReply, site="city"), "FECG-509"),
        (with_reply(TrainReply, code_fingerprint="other"), "FECG-510"),
        (with_reply(TrainReply, patients=10**6), "FECG-515"),
        (fail, "FECG-323"),
        (flower_error, "FECG-508"),
    ],
)
def test_a_bad_reply_is_named_and_left_out(
    study: Make, tamper: Callable[[Message], Message], code: str
) -> None:
    run = study(tamper)
    run.join()
    run.align()
    (record,) = run.records
    assert record.rejected == {"coast": code}
    assert record.answered == ["city", "valley"]
    assert record.missing == []
    assert np.isfinite(run.trained["align"]).all()


def test_counts_that_contradict_themselves_are_rejected_with_the_update(study: Make) -> None:
    run = study(break_sums)
    run.join()
    run.survive()
    assert all(record.rejected == {"coast": "FECG-524"} for record in run.records)


def test_a_node_for_which_flower_itself_answers_is_missing(study: Make) -> None:
    """A lost connection comes back as an error from the SuperLink's own node id."""

    def gone(reply: Message) -> Message:
        reply = flower_error(reply)
        reply.metadata.__dict__["_src_node_id"] = SUPERLINK_NODE_ID
        return reply

    run = study(gone)
    run.join()
    run.align()
    assert run.records[0].missing == ["coast"]
    assert run.records[0].rejected == {}


def test_a_site_whose_training_fails_does_not_take_the_others_of_its_process_with_it(
    study: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All virtual sites share one network: gradients that are not finite must not stay in it."""
    honest = SiteData.signals

    def spoiled(site: SiteData, rows: np.ndarray) -> torch.Tensor:
        signal = honest(site, rows)
        return signal * float("nan") if site.name == "city" else signal

    monkeypatch.setattr(SiteData, "signals", spoiled)
    run = study()
    run.join()
    run.align()
    assert run.records[0].rejected == {"city": "FECG-323"}
    assert run.records[0].answered == ["coast", "valley"]


def test_a_cohort_table_that_was_replaced_is_read_anew(study: Make, sites: Path, tmp_path: Path) -> None:
    copy = tmp_path / "sites"
    shutil.copytree(sites, copy)
    for file in copy.glob("*/site.toml"):
        file.write_text(file.read_text().replace('"../../store', f'"{sites.parent}/store'))
    run = study(folder=copy)
    run.join()
    run.align()
    before = run.records[0].loss
    for table in copy.glob("*/cohort.csv"):
        lines = table.read_text().splitlines(keepends=True)
        table.write_text("".join(lines[: len(lines) // 2]))
    run = study(folder=copy)
    run.join()
    run.align()
    assert run.records[0].loss != before


def test_a_round_below_the_quorum_is_in_the_book(study: Make) -> None:
    run = study(fail, quorum=3)
    run.join()
    with pytest.raises(FederationError):
        run.align()
    book = read_json(run.folder.path / "rounds.json")
    assert [(entry["stage"], entry["rejected"]) for entry in book] == [("align", {"coast": "FECG-323"})]


def test_below_the_quorum_the_study_ends_and_says_who_and_why(study: Make) -> None:
    run = study(fail, quorum=3)
    run.join()
    with pytest.raises(FederationError, match=r"FECG-507 align round 1: found 2 usable.*coast \(FECG-323\)"):
        run.align()


def test_a_site_with_other_code_cannot_join(study: Make) -> None:
    run = study(with_reply(JoinReply, code_fingerprint="other"), kind="query.join")
    run.join()
    assert sorted(run.consortium.members) == ["city", "valley"]
    assert list(run.refused.values()) == ["FECG-510"]


def test_two_sites_of_one_name_are_refused(study: Make) -> None:
    run = study(with_reply(JoinReply, site="city"), kind="query.join")
    with pytest.raises(FederationError, match="FECG-513 site names: found city twice"):
        run.join()


def test_a_survey_of_another_grid_leaves_its_site_out_of_the_stage(study: Make) -> None:
    run = study(with_reply(SurveyReply, train_events=[1, 2]), kind="query.survey")
    run.join()
    run.survive()
    assert run.refused == {"coast": "FECG-503"}
    assert all(record.answered == ["city", "valley"] for record in run.records)
    assert all(record.rejected == {"coast": "FECG-503"} for record in run.records)


def test_hazard_sums_that_make_a_negative_risk_set_leave_their_site_out(study: Make) -> None:
    def negative(reply: Message) -> Message:
        document, vector = unpack(reply.content, SurveyReply)
        sums = [-1.0, *document.train_exp_sums[1:-1], -1.0]
        reply.content = pack(document.model_copy(update={"train_exp_sums": sums}), vector)
        return reply

    run = study(negative, kind="query.survey")
    run.join()
    run.survive()
    assert run.refused == {"coast": "FECG-516"}


def test_a_survey_of_other_events_than_the_site_joined_with_is_left_out(study: Make) -> None:
    def more(reply: Message) -> Message:
        document, vector = unpack(reply.content, SurveyReply)
        events = [document.train_events[0] + 1000, *document.train_events[1:]]
        reply.content = pack(document.model_copy(update={"train_events": events}), vector)
        return reply

    run = study(more, kind="query.survey")
    run.join()
    run.survive()
    assert run.refused == {"coast": "FECG-515"}


def test_late_entries_in_the_part_to_be_evaluated_leave_their_site_out(
    study: Make, sites: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "late"
    for site in sites.iterdir():
        shutil.copytree(site, folder / site.name)
        document = (folder / site.name / "site.toml").read_text()
        store = next((sites.parent / "store").glob("*/store.json")).parent
        (folder / site.name / "site.toml").write_text(re.sub(r"store = .*", f'store = "{store}"', document))
    table = folder / "coast" / "cohort.csv"
    cohort = read_cohort(table)
    late = np.where(cohort.part == "test", cohort.follow_up_days / 2, 0.0)
    write_cohort(replace(cohort, entry_days=late), table)
    run = study(folder=folder)
    run.join()
    result = run.conclude(*run.survive())
    assert result["refused"] == {"coast": "FECG-517"}
    assert sorted(read_json(run.folder.path / "assessment.json")["sites"]) == ["city", "valley"]


def test_an_assessment_below_the_quorum_costs_figures_and_not_the_model(study: Make) -> None:
    def nothing(reply: Message) -> Message:
        reply.content = pack(Failure(site="coast", failed="FECG-517"))
        return reply

    run = study(nothing, kind="query.assess", quorum=3)
    run.join()
    result = run.conclude(*run.survive())
    assert result["status"] == "completed-partial"
    assert load_model(run.folder.model).baseline is not None
    assert not (run.folder.path / "assessment.json").exists()


def test_an_evaluation_that_contradicts_itself_is_left_out(study: Make) -> None:
    run = study(with_reply(EvaluateReply, validation_events=[1]), kind="evaluate")
    run.join()
    hazard, best = run.survive()
    result = run.conclude(hazard, best)
    assert result["status"] == "completed-partial"
    assert result["refused"] == {"coast": "FECG-503"}


def test_sums_of_the_final_evaluation_that_contradict_themselves_are_left_out(study: Make) -> None:
    def inflated(reply: Message) -> Message:
        document, _ = unpack(reply.content, AssessReply)
        arrays = {**document.arrays, "hazard.patients": [10.0**6]}
        reply.content = pack(document.model_copy(update={"arrays": arrays}))
        return reply

    run = study(inflated, kind="query.assess")
    run.join()
    result = run.conclude(*run.survive())
    assert result["refused"] == {"coast": "FECG-527"}
    assessment = read_json(run.folder.path / "assessment.json")
    assert sorted(assessment["sites"]) == ["city", "valley"]
    assert assessment["part"] == "test"


def test_the_book_lists_every_round_and_the_last_validation(study: Make) -> None:
    run = study()
    run.join()
    run.align()
    hazard, best = run.survive()
    result = run.conclude(hazard, best)
    assert [(r.stage, r.round) for r in run.records] == [("align", 1), ("survival", 1), ("survival", 2)]
    assert [r.weights_evaluated for r in run.records] == [None, 0, 1]
    assert run.records[1].hazard_ratio == pytest.approx(1.0)
    assert result["status"] == "completed"
    assert result["rounds"] == {"align": 1, "survival": 2}
    saved = load_model(run.folder.model)
    assert saved.population is not None
    assert sum(saved.population.patients) == sum(
        site["parts"]["validation"]["patients"] for site in result["sites"]
    )
    assert saved.baseline is not None
    assert len(saved.baseline.variance) == len(saved.baseline.cumulative_hazard)
    assert 0 <= best.rounds <= 2


def test_a_baseline_that_has_drifted_away_is_replaced_and_the_round_repeated(study: Make) -> None:
    run = study()
    run.join()
    original = run.questions.ask

    def stale(*arguments: object) -> dict[str, object]:
        replies = original(*arguments)  # type: ignore[arg-type]
        if arguments[0] == "query.survey":
            for site, reply in replies.items():
                sums = [10 * part for part in reply.train_exp_sums]  # type: ignore[attr-defined]
                replies[site] = reply.model_copy(update={"train_exp_sums": sums})
        return replies  # type: ignore[return-value]

    run.questions.ask = stale  # type: ignore[method-assign]
    run.survive()
    assert [(r.round, r.repeated) for r in run.records] == [(1, True), (1, False), (2, False)]
    assert run.records[0].hazard_ratio == pytest.approx(0.1)
    assert run.records[1].hazard_ratio == pytest.approx(1.0)


def test_a_site_that_was_away_at_the_survey_takes_part_when_it_is_back(
    study: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = study()
    run.join()
    coast = run.consortium.members["coast"].node
    everybody, survey = run.grid.get_node_ids, run.questions.survey

    def survey_without_coast(vector: np.ndarray) -> dict[str, SurveyReply]:
        with monkeypatch.context() as patch:
            patch.setattr(run.grid, "get_node_ids", lambda: [n for n in everybody() if n != coast])
            return survey(vector)

    monkeypatch.setattr(run.questions, "survey", survey_without_coast)
    hazard, best = run.survive()
    assert sorted(run.survey) == ["city", "valley"]
    assert sorted(run.late_survey) == ["coast"]
    assert [record.answered for record in run.records] == [["city", "coast", "valley"]] * 2
    assert hazard.events["coast"].sum() == run.questions.parts["coast"]["train"].events
    assert sorted(site["name"] for site in run.conclude(hazard, best)["sites"]) == ["city", "coast", "valley"]
