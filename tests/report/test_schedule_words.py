"""The card tells of ECGs without a known outcome, and of an encoder that was not tuned like the rest."""

from typing import Any

import pytest

from fedecg.config import StudySettings, parse_settings
from fedecg.report.model_card import model_card_markdown
from fedecg.report.study_words import Study

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
