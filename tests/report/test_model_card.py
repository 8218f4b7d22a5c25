"""The model card and the checklists: complete, from the run alone, the same every time, safe with hostile names."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedecg.config import StudySettings
from fedecg.errors import RunError
from fedecg.report.checklists import TRIPOD_AI, TRIPOD_CLUSTER
from fedecg.report.markdown import escaped
from fedecg.report.model_card import model_card_markdown, write_model_card
from fedecg.report.study_words import Study
from fedecg.report.subgroups import subgroup_grid
from fedecg.report.tripod import answers, tripod_markdown

Entry = dict[str, Any]
HASH = "ab12" * 16


@pytest.fixture
def study(summary: Entry, assessment: Entry) -> Study:
    for site in summary["sites"]:
        site["parts"] = {
            "train": {"patients": site["train"], "events": 1},
            "test": {"patients": 10, "events": 2},
        }
    return Study(summary, assessment, StudySettings(), {"weights-sha256": HASH, "bank-sha256": "cd34" * 16})


def test_the_card_has_all_its_parts(study: Study) -> None:
    card = model_card_markdown(study)
    titles = re.findall(r"^## (.*)$", card, re.M)
    assert titles == [
        "Intended use", "Not intended", "Data", "Training", "Privacy", "Evaluation", "Subgroups", "Limits", "Hashes"
    ]  # fmt: skip
    pairs = study.assessment["concordance"]  # type: ignore[index]
    for part in (
        "# Model card: demo (outcomes SIMULATED)",
        "7 sites, 5,715 patients, 318 events",
        "train 5,145 patients (7 events); test 70 patients (14 events)",
        "Stage 1, alignment: 4 rounds, loss bank",
        "Stage 2, survival: 12 rounds, loss cox-pooled: the pooled Cox model from sums of the sites, shared baseline",
        "Round 9 gave the weights",
        f"C-index of pairs within sites {pairs['stratified']:.3f} ({pairs['stratified-ci-low']:.3f}–",
        "Decision curve. At year 5",
        "| harbour | 900 |",
        f"weights, sha256: {HASH}",
        "seed: 0",
        "it is not a medical device",
    ):
        assert part in card, part


def test_what_a_coordinator_cannot_know_is_not_stated_and_no_nought(study: Study) -> None:
    study.summary["refused-recordings"] = {"FECG-213": 3}  # type: ignore[index]
    assert "3 recordings refused" in tripod_markdown(study)
    study.summary["refused-recordings"] = {}  # type: ignore[index]
    assert "0 recordings refused" in tripod_markdown(study)
    del study.summary["refused-recordings"]  # type: ignore[attr-defined]
    text = tripod_markdown(study)
    assert "the number of recordings refused at the sites is not stated" in text
    assert "0 refused" not in text
    assert "0 recordings refused" not in text


def test_observed_outcomes_are_said_to_be_observed(study: Study) -> None:
    study.summary["outcomes"] = "observed"  # type: ignore[index]
    text = model_card_markdown(study) + tripod_markdown(study)
    assert "simulated" not in text.lower().replace("models of a simulation", "")
    assert "Outcomes were observed" in text


def test_subgroups_pass_the_same_disclosure_control(
    summary: Entry, make_assessment: Callable[..., Entry]
) -> None:
    entry = make_assessment({"a": 900, "b": 400}, female=0.004)
    del summary["federated-c-index"]["pooled-reference"]  # as a coordinator has it
    study = Study(summary, entry, StudySettings(), {})
    card, checklists = model_card_markdown(study), tripod_markdown(study)
    assert "| female | fewer than 10 | fewer than 5 | withheld | withheld |" in card
    assert "| male | withheld | withheld | withheld | withheld |" in card
    assert "female: withheld; male: withheld" in checklists
    assert subgroup_grid(entry).rows[2][3].rstrip("*") in checklists


@pytest.mark.parametrize(
    ("items", "published"),
    [
        (
            TRIPOD_AI,
            "1 2 3abc 4 5ab 6abc 7 8abc 9abc 10 11 12abcdefg 13 14 15 16 17 18abcdef 19 20abc 21 22 23ab 24 25 26 "
            "27abc",
        ),
        (TRIPOD_CLUSTER, "1 2 3ab 4ab 5 6ab 7abcd 8abcdefg 9 10abc 11 12ab 13ab 14 15 16abc 17 18 19"),
    ],
    ids=["TRIPOD+AI", "TRIPOD-Cluster"],
)
def test_the_checklists_have_every_item_of_the_published_ones_in_order(items: Any, published: str) -> None:
    parts = [re.fullmatch(r"(\d+)([a-z]*)", word).groups() for word in published.split()]  # type: ignore[union-attr]
    assert [item.number for item in items] == [
        number + letter for number, letters in parts for letter in letters or [""]
    ]
    assert [int(number) for number, _ in parts] == list(range(1, len(parts) + 1))


def test_every_item_is_answered_or_open_and_every_answer_exists_and_is_used(study: Study) -> None:
    items, told = (*TRIPOD_AI, *TRIPOD_CLUSTER), answers(study)
    assert all(item.answer or item.left for item in items)
    assert {item.answer for item in items} - {""} == set(told)
    assert all(told.values())
    rows = [line for line in tripod_markdown(study).splitlines() if re.match(r"\| \d", line)]
    assert len(rows) == len(items)
    for item, row in zip(items, rows, strict=True):
        assert ("answered from the run: " in row) == bool(item.answer)
        assert ("open: the authors of a study must state" in row) == bool(item.left)


def test_a_partial_run_and_deaths_are_limits(summary: Entry, make_assessment: Callable[..., Entry]) -> None:
    summary["status"] = "completed-partial"
    card = model_card_markdown(
        Study(summary, make_assessment({"a": 400, "b": 300}, deaths=True), StudySettings(), {})
    )
    assert "Not every site's reply was used in every round (status completed-partial)." in card
    assert "Risks are as if nobody died of other causes; the cumulative incidence is lower." in card


def test_hostile_names_are_text(study: Study) -> None:
    sites = study.assessment["sites"]  # type: ignore[index]
    sites["<img src=x> | [a](http://b) `c`\x1b"] = sites.pop("rural")
    study.summary["study"] = "<script>"  # type: ignore[index]
    card = model_card_markdown(study)
    assert r"\<img src=x\> \| \[a\](http://b) \`c\`?" in card
    assert r"# Model card: \<script\>" in card
    assert escaped("a\nb") == "a?b"


def test_the_files_are_the_same_every_time(summary: Entry, assessment: Entry, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(json.dumps({"weights-sha256": HASH}))
    paths = write_model_card(tmp_path, summary, assessment, StudySettings())
    assert [path.name for path in paths] == ["model_card.md", "tripod.md"]
    first = [path.read_bytes() for path in paths]
    assert [
        path.read_bytes() for path in write_model_card(tmp_path, summary, assessment, StudySettings())
    ] == first


@pytest.mark.parametrize(
    ("content", "found"), [(None, "no such file"), ("[]", r"JSON of another kind \(list\)")]
)
def test_no_model_is_a_message(summary: Entry, tmp_path: Path, content: str | None, found: str) -> None:
    if content is not None:
        (tmp_path / "model.json").write_text(content)
    with pytest.raises(RunError, match=f"FECG-602 model.json: found {found}"):
        write_model_card(tmp_path, summary, None, StudySettings())
