"""What a site with small cells sends: merged, marked where withheld; the coordinator takes it, and bounds hold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asking import NOTHING_IS_SMALL, answer, join, lock_of, said, study, task_of, train
from killed_app import SECTIONS
from prepared_site import first_weights, many_events, prepared_site

from fedecg.cohort import read_cohort
from fedecg.evaluation import assessment_plan, check_site_sums, concordance, global_concordance
from fedecg.federation.documents import CountsDocument
from fedecg.federation.hazard import HazardState, check_survey
from fedecg.federation.messages import pack
from fedecg.federation.sums import AssessReply, AssessTask, PlanDocument
from fedecg.federation.tasks import (
    EvaluateReply,
    EvaluateTask,
    Failure,
    JoinReply,
    SurveyReply,
    SurveyTask,
    TrainReply,
    TrainTask,
)
from fedecg.objectives import Baseline
from fedecg.training import load_site_data, log_hazards

STUDY = study(**{**SECTIONS, "survival": {"local-steps": 1, "batch-size": 16}})
LOCK = lock_of(STUDY)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of simulated patients that states no [privacy]: the thresholds are 10 and 5."""
    site = prepared_site(tmp_path_factory.mktemp("large"), STUDY, patients=500, tested=250, privacy="")
    return many_events(site)


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    return first_weights(STUDY, "survival")


@pytest.fixture(scope="module")
def joined(large: Path) -> JoinReply:
    return JoinReply.model_validate_json(join(large, LOCK))


@pytest.fixture(scope="module")
def surveyed(large: Path, joined: JoinReply, weights: np.ndarray) -> SurveyReply:
    task = task_of(LOCK, SurveyTask, stage="survival", round=0)
    return SurveyReply.model_validate_json(said(answer(large, pack(task, weights), "query.survey")))


@pytest.fixture(scope="module")
def hazard(joined: JoinReply, surveyed: SurveyReply) -> HazardState:
    check_survey(STUDY, {"north": joined.parts}, "north", surveyed)
    return HazardState(STUDY, {"north": surveyed}, {"north": joined.parts})


def evaluated(site: Path, hazard: HazardState, weights: np.ndarray) -> EvaluateReply:
    edges = hazard.shipped_edges_days.tolist()
    task = task_of(
        LOCK,
        EvaluateTask,
        stage="survival",
        grid=hazard.grid_document,
        edges_days=edges,
        parts=["validation", "test"],
    )
    return EvaluateReply.model_validate_json(said(answer(site, pack(task, weights), "evaluate")))


def enough(cells: np.ndarray) -> bool:
    """Every cell that is not of nobody; noughts between the first bins of runs are no cells."""
    some = cells.sum(axis=-1) > 0
    return bool((cells[some][:, 0] >= 10).all() and (cells[some][:, 1] >= 5).all())


def test_events_of_a_survey_are_in_bins_of_enough_events(surveyed: SurveyReply, joined: JoinReply) -> None:
    events = np.array(surveyed.train_events)
    assert events.sum() == joined.parts["train"].events
    assert ((events == 0) | (events >= 5)).all()
    assert (events > 0).sum() > 2


def test_cells_are_merged_and_the_coordinator_takes_them(
    large: Path, joined: JoinReply, hazard: HazardState, weights: np.ndarray
) -> None:
    reply = evaluated(large, hazard, weights)
    hazard.check_evaluation(["validation", "test"], "north", reply)
    counts = reply.counts["test"].counts(hazard.grid)
    assert counts.runs is not None
    assert enough(counts.cells)
    site = load_site_data(large, STUDY, _bank())
    rows = site.rows("test")
    found = global_concordance([counts])
    truth = concordance(site.follow_up_days(rows), site.events(rows), _scores(large, site, rows, weights))
    assert found.stratified == truth.c_index
    assert found.lower <= truth.c_index <= found.upper
    events = np.array(reply.validation_events)
    assert ((events == 0) | (events >= 5)).all()


def test_a_round_is_trained_and_its_sums_are_merged(
    large: Path, hazard: HazardState, weights: np.ndarray
) -> None:
    task = task_of(LOCK, TrainTask, stage="survival", hazard=hazard.document, grid=hazard.grid_document)
    reply = TrainReply.model_validate_json(said(train(large, task, weights)))
    assert reply.sums is not None
    hazard.check_round("north", reply.sums)
    cells = reply.sums.validation.counts(hazard.grid).cells
    assert reply.sums.validation.withheld or enough(cells)


def test_tables_of_an_assessment_hold_enough_or_are_withheld(
    large: Path, hazard: HazardState, weights: np.ndarray, joined: JoinReply
) -> None:
    baseline = Baseline(hazard.edges_days, hazard.cumulative)
    plan = assessment_plan(STUDY.evaluation, hazard.grid, hazard.shipped_edges_days, (0.0, 1.0), baseline)
    task = task_of(LOCK, AssessTask, stage="survival", plan=PlanDocument.of(plan), part="test")
    reply = AssessReply.model_validate_json(said(answer(large, pack(task, weights), "query.assess")))
    sums = reply.sums(plan)
    check_site_sums(sums, plan, "north")
    assert {"auc", "uno", "decision"} <= set(reply.withheld)
    assert not sums.auc.case_weight.any()
    exits = sums.life.exits
    if "life" in reply.withheld:
        assert not exits.any()
    else:
        assert exits.sum() == joined.parts["test"].patients
        some = exits.sum(axis=-1) > 0
        assert (exits[..., 1][some] >= 5).all()
        assert (exits[..., 0][some] >= 10).all()
    cases = np.diff(np.append(0, sums.brier.cases[sums.brier.sites > 0]))
    assert ((cases == 0) | (cases >= 5)).all()
    told = sums.subgroups.patients
    assert ((told == 0) | (told >= 15)).all()


def test_a_part_that_is_small_is_told_as_withheld_and_never_as_nought(
    tmp_path: Path, weights: np.ndarray
) -> None:
    site = _with_parts(many_events(prepared_site(tmp_path, STUDY, 120, tested=20, privacy="")), test=12)
    told = json.loads(join(site, LOCK))["parts"]
    assert told["test"] == {"patients": 0, "events": 0, "withheld": True}
    assert told["train"]["patients"] > 0
    assert told["train"]["withheld"] is False
    grid = _grid()
    task = task_of(LOCK, EvaluateTask, stage="survival", grid=grid, edges_days=[0.0], parts=["test"])
    reply = EvaluateReply.model_validate_json(said(answer(site, pack(task, weights), "evaluate")))
    document = reply.counts["test"]
    assert document.withheld
    assert not any(document.cells)
    assert document.concordant == document.discordant == 0


def test_a_site_with_hardly_anybody_to_learn_from_does_not_take_part(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = prepared_site(tmp_path, STUDY, patients=12, tested=2, privacy="")
    assert Failure.model_validate_json(join(site, LOCK)).failed == "FECG-453"
    assert (
        "FECG-453 train part of the cohort: found fewer than 10 patients without the event, or 5 events; expected at"
        " least so many (privacy.threshold-patients, privacy.threshold-events). A study with masked sums can take a"
        in caplog.text
    )


def test_thresholds_of_nought_send_what_was_sent_before(
    large: Path, hazard: HazardState, weights: np.ndarray, tmp_path: Path
) -> None:
    site = Path(shutil.copytree(large, tmp_path / "open", ignore=shutil.ignore_patterns("state")))
    file = site / "site.toml"
    file.write_text(file.read_text() + NOTHING_IS_SMALL)
    join(site, LOCK)
    reply = evaluated(site, hazard, weights)
    document = reply.counts["test"]
    assert (document.time_kept, document.risk_kept, document.withheld) == (None, None, False)
    assert not enough(document.counts(hazard.grid).cells)
    cohort = read_cohort(site / "cohort.csv")
    inside = cohort.part == "validation"
    events = np.histogram(
        cohort.follow_up_days[inside & cohort.event], np.append(hazard.shipped_edges_days, np.inf)
    )[0]
    assert reply.validation_events == events.tolist()


@pytest.mark.parametrize(
    "changes",
    [{"time_kept": [3, 1]}, {"time_kept": [99]}, {"time_kept": [0], "risk_kept": [1, 1]}, {"time_kept": []}],
    ids=["falling", "no such cut", "twice", "patients in the midst of a run"],
)
def test_merged_bins_that_are_none_are_refused(changes: dict[str, Any], hazard: HazardState) -> None:
    cells = np.zeros(hazard.grid.shape, dtype=int)
    cells[-1, -1, 1] = 7
    document = CountsDocument(
        cells=cells.ravel().tolist(), concordant=0, discordant=0, tied_risk=0, credit_squares=0.0, mixed_squares=0.0,
        comparable_squares=0.0,
    ).model_copy(update=changes)  # fmt: skip
    with pytest.raises(
        Exception, match=r"FECG-503 cells of a reply: found merged bins that are none of the grid's"
    ):
        document.counts(hazard.grid)


def test_a_few_ecgs_without_an_outcome_are_learned_from_and_not_told(tmp_path: Path) -> None:
    site = many_events(prepared_site(tmp_path, STUDY, 120, tested=20, privacy=""))
    lines = (site / "cohort.csv").read_text().splitlines()
    head, rest = lines[:1], lines[1:]
    columns = head[0].split(",")
    unknown = {"part": "align", "event": "", "follow_up_days": "", "entry_days": "", "died": ""}
    moved = 0
    for place, line in enumerate(rest):
        if ",train," in line and moved < 4:
            cells = dict(zip(columns, line.split(",", len(columns) - 1), strict=True)) | unknown
            rest[place], moved = ",".join(cells[name] for name in columns), moved + 1
    (site / "cohort.csv").write_text("\n".join([*head, *rest]) + "\n")
    told = JoinReply.model_validate_json(join(site, LOCK)).parts
    assert told["align"].withheld
    reply = TrainReply.model_validate_json(said(train(site, task_of(LOCK), first_weights(STUDY))))
    assert reply.patients == told["train"].patients


def _bank() -> Any:
    from fedecg.text import load_bank

    return load_bank(STUDY.align.bank)


def _scores(folder: Path, site: Any, rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    from fedecg_client.opened import opened

    _, network, _ = opened(folder, task_of(LOCK, SurveyTask, stage="survival"), weights)
    return log_hazards(network, site, rows)


def _grid() -> Any:
    from fedecg.federation.documents import GridDocument

    return GridDocument(time_cuts_days=[300.0, 900.0], risk_cuts=[-1.0, 0.0, 1.0])


def _with_parts(site: Path, test: int) -> Path:
    """The site's table with so many patients in the part test, the rest in train."""
    lines = (site / "cohort.csv").read_text().splitlines()
    kept = [lines[0]]
    seen = 0
    for line in lines[1:]:
        if ",test," in line:
            seen += 1
            if seen > test:
                continue
        kept.append(line)
    (site / "cohort.csv").write_text("\n".join(kept) + "\n")
    return site
