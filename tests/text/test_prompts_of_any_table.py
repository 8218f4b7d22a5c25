"""Statements of any table: SNOMED CT, a site's own, abbreviations in full, and tables that cannot be used."""

from pathlib import Path

import pytest

from fedecg.errors import TextError
from fedecg.text import Statement, prompt, prompts, snomed_statements
from fedecg.text.prompts import unexpanded
from fedecg.text.statements import read_statements, statement_table


def test_every_code_of_the_physionet_headers_has_a_statement(data_root: Path) -> None:
    found = set()
    for header in [*data_root.glob("cinc202*/**/*.hea")]:
        for line in header.read_text(errors="replace").splitlines():
            name, _, codes = line.lstrip("# ").partition(":")
            if name == "Dx":
                found |= {code.strip() for code in codes.split(",")}
    assert len(found) > 20
    assert found <= set(snomed_statements())


def test_the_snomed_table_has_133_different_statements_and_names_its_source() -> None:
    import fedecg.text

    assert len(set(prompts(snomed_statements().values()).values())) == 133
    text = (Path(fedecg.text.__file__).parent / "snomed_statements.csv").read_text(encoding="utf-8")
    for words in (
        "physionetchallenges/evaluation-2021",
        "BSD 2-Clause",
        "Changed:",
        "Copyright (c) 2020, 2021",
    ):
        assert words in text
    assert not unexpanded(prompts(snomed_statements().values()))
    # Equal in the challenge's scoring, two statements here.
    assert prompt(snomed_statements()["733534002"]) == (
        "Intraventricular conduction: complete left bundle branch block"
    )


@pytest.mark.parametrize(
    ("written", "full"),
    [
        ("LBBB", "left bundle branch block"),
        ("complete RBBB", "complete right bundle branch block"),
        ("iRBBB", "incomplete right bundle branch block"),
        ("1st degree AV block", "first degree atrioventricular block"),
        ("2nd degree AVB", "second degree atrioventricular block"),
        ("LAFB + RBBB", "left anterior fascicular block + right bundle branch block"),
        ("LAHB", "left anterior fascicular block"),
        ("AF", "atrial fibrillation"),
        ("atrial fibrillation (AF)", "atrial fibrillation"),
        ("AFib w/o PVCs", "atrial fibrillation without premature ventricular complex"),
        ("frequent PACs", "frequent premature atrial complex"),
        ("t-wave inversion", "T wave inversion"),
        ("T inversion", "T wave inversion"),
        ("st depression", "ST segment depression"),
        ("ST segment depression", "ST segment depression"),
        ("low qrs voltage", "low QRS complex voltage"),
        ("wide QRS complex", "wide QRS complex"),
        ("prolonged QTc", "prolonged QT interval (ventricular depolarization and repolarization)"),
        ("prolonged QT interval", "prolonged QT interval (ventricular depolarization and repolarization)"),
        ("short PR interval", "short PR interval (atrioventricular conduction)"),
        ("normal EKG", "normal electrocardiogram"),
        ("LVH with strain", "left ventricular hypertrophy with strain"),
        ("old MI / LAE", "old myocardial infarction or left atrial enlargement"),
        ("STEMI", "ST segment elevation myocardial infarction"),
        ("SVT", "supraventricular tachycardia"),
        ("NSR", "sinus rhythm"),
        ("WPW syndrome", "Wolff-Parkinson-White syndrome"),
    ],
)
def test_abbreviations_are_written_out(written: str, full: str) -> None:
    assert prompt(Statement("x", "Group", written)) == f"Group: {full}"


def test_without_a_category_the_description_stands_alone() -> None:
    assert prompt(Statement("x", "", "LBBB")) == "Left bundle branch block"


def test_words_that_the_list_does_not_know_are_named() -> None:
    said = {"a": "Group: XQZ with LAD and QRS complex in V1 and aVF", "b": "Group: II, III, ST segment, LAD"}
    assert unexpanded(said) == ["LAD", "XQZ"]


@pytest.mark.parametrize("separator", [",", ";"])
def test_a_sites_own_table_is_read_as_spreadsheets_write_it(tmp_path: Path, separator: str) -> None:
    rows = [
        ["Code", "note", "Description", "category"],
        ["K1", "x", " LBBB ", "Conduction"],
        ["K2", "", "AF", ""],
    ]
    table = tmp_path / "own.csv"
    table.write_text(
        "\ufeff# ours\n" + "\n".join(separator.join(row) for row in rows) + "\n\n", encoding="utf-8"
    )
    statements, source = statement_table(table)
    assert prompts(statements.values()) == {
        "K1": "Conduction: left bundle branch block",
        "K2": "Atrial fibrillation",
    }
    assert source == "a table of the builder's own"


def test_a_cell_of_several_lines_keeps_its_words_apart(tmp_path: Path) -> None:
    table = tmp_path / "own.csv"
    table.write_bytes(
        b'code,description\r\nA,"left bundle\r\nbranch block"\r\nB,"old infarction, inferior"\r\n'
    )
    assert prompts(read_statements(table).values()) == {
        "A": "Left bundle branch block",
        "B": "Old infarction, inferior",
    }


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("code,description\nA,\nB,block\nC", r"2 code\(s\) without a description in 3 row\(s\)"),
        ("code,description\nA,x\nA,y\nB,z", r"1 code\(s\) that stand there more than once in 3"),
        (
            "code,description\n,x\nB,\nC,c\nC,c",
            r"1 row\(s\) without a code and 1 code\(s\) without .* and 1 code\(s\) that",
        ),
        ("code,description\nA,x", r"no more in 1 row\(s\); expected at least 2 rows"),
        (
            "code,description\nA,old infarction, inferior\nB,x\nC,y,\n",
            r"1 row\(s\) with more cells than columns \(text with a comma in it needs quotes\) in 3",
        ),
    ],
)
def test_rows_that_mean_nothing_are_counted_and_not_shown(tmp_path: Path, text: str, found: str) -> None:
    table = tmp_path / "own.csv"
    table.write_text(text)
    with pytest.raises(TextError, match=f"FECG-251 table of statements: found {found}"):
        read_statements(table)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "no such file"),
        (b"", "none of code or description among its 0 columns"),
        (b"code,meaning\nA,b\n", "none of description among its 2 columns"),
        (b"code,description\nA,\xff\xfe\n", "text that is not UTF-8"),
        (b'code,description\nA,"open\n', "text that is not CSV"),
        (b"code,description,Description\nA,b,c\n", "more than one column description among its 3"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None, found: str) -> None:
    table = tmp_path / "own.csv"
    if content is not None:
        table.write_bytes(content)
    with pytest.raises(
        TextError, match=f"FECG-250 table of statements: found {found}; expected one of scp-ecg, snomed-ct"
    ):
        statement_table(table)
