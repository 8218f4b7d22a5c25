"""A site that trains alone does what a study with that site alone does, and tells counts only."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message

from fedecg.cohort import read_cohort, write_cohort
from fedecg.evaluation import age_sex_risk, concordance, stratified_concordance
from fedecg.federation.baselines import BaselinesReply
from fedecg.federation.messages import pack, unpack
from fedecg.model import load_model
from fedecg.text import load_bank
from fedecg.training import load_site_data, log_hazards
from fedecg_server.run_folder import read_json
from fedecg_server.study import Study

Make = Callable[..., Study]


def finished(run: Study, baselines: bool = True) -> dict[str, Any]:
    """The result of a study, which asks for baselines."""
    evaluation = run.settings.evaluation.model_copy(update={"baselines": baselines})
    run.settings = run.settings.model_copy(update={"evaluation": evaluation})
    run.__post_init__()
    run.join()
    run.align()
    return run.conclude(*run.survive())


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    """Filled by the first test that needs it: the baselines of a study of three sites."""
    return {}


@pytest.fixture
def told(study: Make, kept: dict[str, Any]) -> dict[str, Any]:
    if not kept:
        finished(run := study())
        kept.update(read_json(run.folder.path / "baselines.json"))
    return kept


def test_a_site_alone_reaches_what_a_study_of_that_site_alone_reaches(
    told: dict[str, Any], study: Make, sites: Path, tmp_path: Path
) -> None:
    assert told["part"] == "test"
    assert sorted(told["sites"]) == ["city", "coast", "valley"]
    for name in told["sites"]:
        folder = tmp_path / "one" / name
        shutil.copytree(sites / name, folder)
        text = (folder / "site.toml").read_text()
        store = next((sites.parent / "store").glob("*/store.json")).parent
        (folder / "site.toml").write_text(
            "\n".join(
                f'store = "{store}"' if line.startswith("store") else line for line in text.splitlines()
            )
        )
        alone = study(folder=tmp_path / "one")
        finished(alone, baselines=False)
        network = load_model(alone.folder.model).network
        data = load_site_data(folder, alone.settings, load_bank(alone.settings.align.bank))
        rows = data.rows("test")
        expected = concordance(data.follow_up_days(rows), data.events(rows), log_hazards(network, data, rows))
        entry = told["sites"][name]["local"]
        assert entry["comparable-pairs"] == expected.comparable
        assert entry["stratified"] == (pytest.approx(expected.c_index) if expected.comparable else None)
        shutil.rmtree(tmp_path / "one")


def test_age_and_sex_are_those_of_each_site_and_add_up(told: dict[str, Any], sites: Path) -> None:
    joined = told["age-sex"]
    times, events, risks, strata = [], [], [], []
    for number, folder in enumerate(sorted(sites.iterdir())):
        cohort = read_cohort(folder / "cohort.csv")
        test = cohort.select(cohort.part == "test")
        risk = age_sex_risk(cohort.select(cohort.part == "train"), test)
        assert risk is not None
        times += test.follow_up_days.tolist()
        events += test.event.tolist()
        risks += risk.tolist()
        strata += [number] * len(test)
    expected = stratified_concordance(times, events, risks, strata)
    assert joined["comparable-pairs"] == expected.comparable
    assert joined["stratified"] == pytest.approx(expected.c_index)


def test_a_site_without_events_says_so_and_the_others_stand(study: Make, sites: Path, tmp_path: Path) -> None:
    folder = tmp_path / "quiet"
    shutil.copytree(sites.parent, folder)
    table = folder / "sites" / "coast" / "cohort.csv"
    cohort = read_cohort(table)
    cohort.event[:] = False
    write_cohort(cohort, table)
    finished(run := study(folder=folder / "sites"))
    told = read_json(run.folder.path / "baselines.json")["sites"]
    assert told["coast"]["code"] == "FECG-512"
    assert told["coast"]["local"] is None
    assert told["city"]["local"]["patients"] > 0


def test_counts_that_do_not_fit_leave_their_site_out(study: Make) -> None:
    def more(reply: Message) -> Message:
        document, _ = unpack(reply.content, BaselinesReply)
        assert document.local is not None
        local = document.local.model_copy(update={"cells": [cell + 1 for cell in document.local.cells]})
        reply.content = pack(document.model_copy(update={"local": local}))
        return reply

    result = finished(run := study(more, kind="query.baselines"))
    assert result["status"] == "completed-partial"
    assert "coast" in result["refused"]
    assert sorted(read_json(run.folder.path / "baselines.json")["sites"]) == ["city", "valley"]
