"""Reports: read by record, freed of what states nothing, cut into sentences; and never shown in an error."""

import os
from pathlib import Path

import numpy as np
import pytest

from fedecg.errors import TextError
from fedecg.text.reports import informative, read_reports, sentences

SECRET = "Zebedee Quill had a syncope"


def table(folder: Path, text: str) -> Path:
    file = folder / "reports.csv"
    file.write_text(text, encoding="utf-8")
    return file


def test_reports_come_in_the_order_of_the_cohorts_records(tmp_path: Path) -> None:
    file = table(
        tmp_path, 'report,record,ward\n"sinus rhythm, normal.",4,x\n\n"",0,y\ntrace only requested.,7,z\n'
    )
    found = read_reports(file, np.array([7, 4, 0, 9]))
    assert found == ["", "sinus rhythm, normal", "", ""]


def test_a_byte_order_mark_and_lines_inside_a_report_are_read(tmp_path: Path) -> None:
    file = table(tmp_path, '\ufeffrecord,report\n1,"sinus rhythm.\nleft axis   deviation."\n')
    assert read_reports(file, np.array([1])) == ["sinus rhythm. left axis deviation"]


@pytest.mark.parametrize(
    "nothing",
    [
        "", "   ", "4.46", "trace only requested.", "Trace only requested. ", "ECG only", "no report requested",
        "4.46                          unbestÄtigter bericht", "nur EKG angefordert", "Befund nicht angefordert",
        "endast EKG-registrering", "ej bedömt", "tracé seul demandé", "sólo trazado", "solo tracciato",
        "niet beoordeeld",
    ],
)  # fmt: skip
def test_a_report_that_states_nothing_is_empty_in_many_languages(nothing: str) -> None:
    assert informative(nothing) == ""


@pytest.mark.parametrize(
    ("report", "left"),
    [
        ("sinusrhythmus normales ekg 4.46      unbestÄtigter bericht", "sinusrhythmus normales ekg"),
        ("trace only requested. Edit: CLBBB", "Edit: CLBBB"),
        ("ohne Befund", "ohne Befund"),  # German for "nothing found": a finding
        ("no abnormality", "no abnormality"),
        ("tracing only shows sinus rhythm", "shows sinus rhythm"),
    ],
)
def test_what_states_something_stays(report: str, left: str) -> None:
    assert informative(report) == left


def test_sentences_end_at_stops_and_not_inside_numbers() -> None:
    said = informative("sinus rhythm. pr 0.22 s; no change since 1.2.91. ? old infarct, inferior.")
    assert sentences(said) == ["sinus rhythm", "pr 0.22 s", "no change since 1.2.91", "old infarct, inferior"]
    assert sentences("") == []


def test_every_report_of_ptb_xl_is_read_and_only_40_of_4556_state_nothing(data_root: Path) -> None:
    import pandas as pd

    frame = pd.read_csv(data_root / "ptbxl_text/ptbxl_database_rhythm_subset.csv")
    said = [informative(report) for report in frame["report"].fillna("")]
    assert sum(not report for report in said) == 40
    assert not any("bericht" in report.lower() for report in said)
    assert all(sentences(report) for report in said if report)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("record,finding\n1,x\n", "no column report among its 2"),
        ("", "no column record or report among its 0"),
        (f"record,report\n1,{SECRET},more\n", "1 of 1 rows with more or fewer cells than the header"),
        (
            f"record,report\n1,{SECRET}\n1,{SECRET}\nRec7,{SECRET}\n",
            "1 record(s) that are no whole number and 1 that stand there twice",
        ),
        (f'record,report\n1,"{SECRET}\n', "text that is not CSV"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_without_a_word_of_it(
    tmp_path: Path, text: str, found: str
) -> None:
    with pytest.raises(TextError) as refused:
        read_reports(table(tmp_path, text), np.array([1]))
    said = str(refused.value)
    assert refused.value.code == "FECG-234"
    assert f"found {found}; expected a csv (UTF-8) with the columns record and report" in said
    assert "Quill" not in said
    assert "Rec7" not in said
    assert refused.value.__cause__ is None


def test_a_table_that_is_not_there_not_text_or_a_pipe_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes("record,report\n1,Vorhofflimmern tachykard für\n".encode("latin-1"))
    os.mkfifo(tmp_path / "pipe.csv")
    for name, found in {
        "absent.csv": "no such file",
        "latin.csv": "text that is not UTF-8",
        "pipe.csv": "a pipe or device",
    }.items():
        with pytest.raises(TextError, match=f"FECG-234 table of reports: found {found}"):
            read_reports(tmp_path / name, np.array([1]))
