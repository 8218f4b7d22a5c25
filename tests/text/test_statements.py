"""The 71 SCP-ECG statements and their prompts: equal to PTB-XL's published table, and in full words."""

import csv
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedecg.text import (
    SUPERCLASSES,
    UNCLASSIFIED,
    dominant_superclass,
    prompts,
    prompts_sha256,
    scp_statements,
)


def test_there_are_71_statements_in_the_order_of_their_codes() -> None:
    codes = list(scp_statements())
    assert len(codes) == 71
    assert codes == sorted(codes)
    assert {statement.superclass for statement in scp_statements().values()} == {*SUPERCLASSES, ""}


def test_diagnostic_statements_and_only_these_have_a_superclass() -> None:
    for statement in scp_statements().values():
        assert ("diagnostic" in statement.kinds) == bool(statement.superclass) == bool(statement.subclass)
        assert statement.kinds
        assert set(statement.kinds) <= {"diagnostic", "form", "rhythm"}


def test_the_table_says_what_ptbxl_publishes(data_root: Path) -> None:
    with (data_root / "ptbxl" / "scp_statements.csv").open(encoding="utf-8", newline="") as file:
        published = {row[""]: row for row in csv.DictReader(file)}
    assert set(published) == set(scp_statements())
    for code, statement in scp_statements().items():
        row = published[code]
        assert statement.kinds == tuple(
            kind for kind in ("diagnostic", "form", "rhythm") if row[kind] == "1.0"
        )
        assert statement.superclass == row["diagnostic_class"]
        assert statement.subclass == row["diagnostic_subclass"]
        assert statement.category == row["Statement Category"].strip()
        assert statement.description == row["SCP-ECG Statement Description"].strip()


def test_the_table_names_its_source_and_licence() -> None:
    import fedecg.text

    text = (Path(fedecg.text.__file__).parent / "scp_statements.csv").read_text(encoding="utf-8")
    assert "Wagner et al." in text
    assert "CC BY 4.0" in text
    assert "Changed:" in text


def test_prompts_are_category_and_description_in_full_words() -> None:
    prompt_of = prompts(scp_statements().values())
    assert prompt_of["NORM"] == "Overall assessment: normal electrocardiogram"
    assert prompt_of["NST_"] == "ST segment and T wave changes: non-specific ST segment changes"
    assert prompt_of["1AVB"] == (
        "Sinus node dysfunction, atrial and atrioventricular conduction defects: first degree atrioventricular block"
    )
    assert prompt_of["CLBBB"] == (
        "Intraventricular and intra-atrial Conduction disturbances: complete left bundle branch block"
    )


def test_no_prompt_keeps_an_abbreviation_and_all_differ() -> None:
    prompt_of = prompts(scp_statements().values())
    assert len(set(prompt_of.values())) == 71
    for text in prompt_of.values():
        assert not re.search(
            r"\bAV\b|\bSV\b|\bECG\b|\bST-T\b|\bQRS (?!complex)|\bST (?!segment)|\bT (?!wave)", text
        )
        assert re.fullmatch(r"[A-Z][^:/]+: [^:/]+", text), text


def test_the_hash_of_the_prompts_knows_text_code_and_order() -> None:
    one = prompts_sha256({"A": "a", "B": "b"})
    assert one == prompts_sha256({"A": "a", "B": "b"})
    assert len({one, prompts_sha256({"B": "b", "A": "a"}), prompts_sha256({"A": "a", "B": "c"})}) == 3


@pytest.mark.parametrize(
    ("codes", "superclass"),
    [
        ({}, UNCLASSIFIED),
        ({"SR": 0.0, "PVC": 100.0}, UNCLASSIFIED),
        ({"unheard-of": 100.0}, UNCLASSIFIED),
        ({"NORM": 80.0, "SR": 0.0}, "NORM"),
        ({"NORM": 50.0, "LVH": 50.0}, "HYP"),
        ({"LVH": 80.0, "IMI": 50.0, "AMI": 50.0}, "MI"),
        ({"CLBBB": 0.0, "LVH": 50.0}, "CD"),
    ],
)
def test_the_dominant_superclass_by_hand(codes: dict[str, float], superclass: str) -> None:
    assert dominant_superclass(codes) == superclass


@given(st.dictionaries(st.sampled_from(sorted(scp_statements())), st.floats(0, 100), max_size=6))
def test_the_dominant_superclass_does_not_depend_on_the_order_of_the_codes(codes: dict[str, float]) -> None:
    whole = {code: float(round(likelihood)) for code, likelihood in codes.items()}
    backwards = dict(reversed(whole.items()))
    assert dominant_superclass(whole) == dominant_superclass(backwards)
