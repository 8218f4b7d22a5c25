"""The card tells of ECGs without a known outcome, and of an encoder that was not tuned like the rest."""

from typing import Any

import pytest

from fedecg.config import StudySettings, parse_settings
from fedecg.report.html import report_html
from fedecg.report.model_card import model_card_markdown
from fedecg.report.study_words import Study
from fedecg.report.tripod import answers

Entry = dict[str, Any]


@pytest.fixture
def study(summary: Entry, assessment: Entry) -> Study:
    for site in summary["sites"]:
        site["parts"] = {"train": {"patients": site["train"], "events": 1}}
    return Study(summary, assessment, StudySettings(), {})


def test_ecgs_that_only_align_are_told_apart(study: Study) -> None:
    assert "without a known outcome" not in model_card_markdown(study)
    for site in study.summary["sites"][:2]:
        site["parts"]["align"] = {"patients": 30, "events": 0}
    card = model_card_markdown(study)
    assert "(7 events); align 60 ECGs without a known outcome, for alignment alone." in card


def test_alignment_on_public_ecgs_is_said_to_be_on_no_sites_own(study: Study) -> None:
    assert "public ECGs" not in model_card_markdown(study)
    settings = parse_settings(StudySettings, {"data": {"public-patients": 2500}})
    card = model_card_markdown(Study(study.summary, study.assessment, settings, {}))
    assert "rounds on 2,500 public ECGs, before the study, and on no site's, loss bank" in card


@pytest.mark.parametrize(
    ("survival", "told"),
    [
        ({}, "on the validation part.\n"),
        ({"freeze-rounds": 4}, " The encoder stayed as it was in the first 4 rounds.\n"),
        (
            {"layer-decay": 0.6},
            " Every level of the encoder learned at 0.6 of the rate of the level above it.\n",
        ),
        (
            {"encoder-rate": 0.1, "alignment": 0.3},
            " The encoder learned at 0.1 of the learning rate; the alignment loss was kept with weight 0.3.\n",
        ),
    ],
)
def test_how_the_encoder_was_tuned_stands_with_the_stage(study: Study, survival: Entry, told: str) -> None:
    settings = parse_settings(StudySettings, {"survival": survival})
    card = model_card_markdown(Study(study.summary, study.assessment, settings, {}))
    stage = card[card.index("Stage 2, survival") :]
    assert stage[: stage.index("\n") + 1].endswith(told)


@pytest.mark.parametrize(
    ("section", "told"),
    [
        (
            {"privacy": {"mode": "sample", "sums": "noised"}},
            "with differential privacy of patients no round is validated",
        ),
        ({"federation": {"fraction": 0.5}}, "other sites took part in every round"),
        (
            {"privacy": {"mode": "client"}, "survival": {"baseline": "site"}},
            "the choice would be a release without noise",
        ),
    ],
)
def test_where_validation_chose_nothing_nobody_says_that_it_did(
    study: Study, rounds: list[Entry], section: Entry, told: str
) -> None:
    settings = parse_settings(StudySettings, {"evaluation": {"explain": False}, **section})
    card = model_card_markdown(Study(study.summary, study.assessment, settings, {}))
    assert f"The weights are those after round 9, the last, and validation chose none: {told}" in card
    assert "gave the weights" not in card
    page = report_html(study.summary, rounds, settings=settings)
    assert "weights of the last survival round, 9" in page
    assert "best survival round" not in page
    assert "The best round by stratified C is kept" not in page
    items = str(answers(Study(study.summary, study.assessment, settings, {})))
    assert "not chosen but taken from the last round" in items
    assert "chosen on validation" not in items


def test_a_card_tells_of_differential_privacy_and_of_what_noised_histograms_say(study: Study) -> None:
    assert "No differential privacy in this run" in model_card_markdown(study)
    site = {"name": "city", "epsilon": 7.94, "budget": 8.0, "delta": 1e-5, "phases": {"survival": 7.94}}
    study.summary["privacy"] = {"mode": "sample", "sites": [site, {**site, "name": "coast", "epsilon": 3.1}]}
    figures = {"stratified": 0.701, "stratified-ci-low": 0.61, "stratified-ci-high": 0.79}
    figures |= {"global": 0.72, "ci-low": 0.65, "ci-high": 0.81, "noised": True, "few-events": False}
    study.summary["federated-c-index"] = figures
    card = model_card_markdown(Study(study.summary, None, study.settings, {}))
    assert "epsilon 7.94 at delta 1e-05 at the site that spent most of 2" in card
    assert "whoever was at two sites has spent at both" in card
    assert (
        "C-index from noised histograms of the test part: of pairs within sites 0.701 (0.610–0.790)" in card
    )
    assert "no final evaluation" not in card
    assert "No differential privacy" not in card


def test_a_card_tells_of_differential_privacy_of_sites(study: Study) -> None:
    study.summary["privacy"] = {
        **{"mode": "client", "sums": "plain", "unit": "site", "sites": [], "epsilon": 3.617, "delta": 1e-5},
        **{"noise": 8.0, "clip": 0.5, "releases": 40, "phases": {}, "of-sites": 64, "forced": False},
    }
    card = model_card_markdown(study)
    assert "Differential privacy of sites: epsilon 3.62" in card
    assert "What this does not protect: single patients" in card
