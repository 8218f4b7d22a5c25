"""A hospital of 30 patients, each a case from the rules, and what must become of each.

The ECG is on 2020-03-10 and the last contact on 2022-03-10 (730 days later) where nothing else is said.
"""

from pathlib import Path
from typing import NamedTuple

ECG, END, HTN = "2020-03-10", "2022-03-10", ("2019-01-01", "I10", "10")


class Patient(NamedTuple):
    """One patient and what is expected: the key of the step at which it leaves, or the row of the cohort."""

    name: str
    case: str
    ecgs: list[tuple[str, str]]  # date, file
    diagnoses: list[tuple[str, str, str]]  # date, code, version
    contacts: list[str]
    deaths: list[str]
    expected: str | tuple[str, int, int, float]  # file, event, died, follow_up_days
    birth_year: str = "1960"
    sex: str = "F"


def plain(
    name: str, case: str, *more: tuple[str, str, str], expected: str | tuple[str, int, int, float]
) -> Patient:
    """One ECG, hypertension before it, two years of follow-up, and the diagnoses that make the case."""
    return Patient(name, case, [(ECG, f"{name}.hea")], [HTN, *more], [END], [], expected)


HOSPITAL = [
    plain("p01", "nothing happens", expected=("p01.hea", 0, 0, 730.0)),
    plain(
        "p02", "heart failure after a year", ("2021-03-10", "I50.9", "10"), expected=("p02.hea", 1, 0, 365.0)
    ),
    plain("p03", "prior heart failure", ("2019-12-31", "I50.0", "10"), expected="heart-failure-before"),
    plain("p04", "heart failure on the ECG's day", (ECG, "I50.1", "10"), expected="heart-failure-on-day"),
    plain("p05", "heart failure on day 1", ("2020-03-11", "I50.1", "10"), expected=("p05.hea", 1, 0, 1.0)),
    Patient(
        "p06",
        "two ECGs: the first",
        [("2020-09-10", "p06b"), (ECG, "p06a")],
        [HTN],
        [END],
        [],
        ("p06a", 0, 0, 730.0),
    ),
    Patient(
        "p07",
        "immortal time: hypertension between two ECGs, so the second is the index",
        [(ECG, "p07a"), ("2020-09-10", "p07b")],
        [("2020-06-01", "I10", "10")],
        [END],
        [],
        ("p07b", 0, 0, 546.0),
    ),
    Patient(
        "p08",
        "immortal time: hypertension after the only ECG",
        [(ECG, "p08")],
        [("2020-03-11", "I10", "10")],
        [END],
        [],
        "inclusion-late",
    ),
    Patient(
        "p09",
        "hypertension on the ECG's day",
        [(ECG, "p09")],
        [(ECG, "I10", "10")],
        [END],
        [],
        ("p09", 0, 0, 730.0),
    ),
    Patient(
        "p10", "no hypertension", [(ECG, "p10")], [("2019-01-01", "E11.9", "10")], [END], [], "no-inclusion"
    ),
    Patient(
        "p11",
        "death before heart failure, no contact but that",
        [(ECG, "p11")],
        [HTN],
        [],
        ["2021-01-01"],
        ("p11", 0, 1, 297.0),
    ),
    Patient(
        "p12",
        "heart failure on the day of death: the event",
        [(ECG, "p12")],
        [HTN, ("2021-01-01", "I50.9", "10")],
        [END],
        ["2021-01-01"],
        ("p12", 1, 0, 297.0),
    ),
    Patient(
        "p13",
        "ICD-9 only, without dots",
        [(ECG, "p13")],
        [("2009-01-01", "4019", "9"), ("2021-06-01", "42831", "9")],
        [END],
        [],
        ("p13", 1, 0, 448.0),
    ),
    Patient(
        "p14",
        "lower case, no dot, trailing blanks",
        [(ECG, "p14")],
        [("2019-01-01", "i10  ", "10"), ("2021-06-01", "i110 ", "10")],
        [END],
        [],
        ("p14", 1, 0, 448.0),
    ),
    Patient(
        "p15",
        "402.91 is hypertension and heart failure: prevalent",
        [(ECG, "p15")],
        [("2019-01-01", "402.91", "9")],
        [END],
        [],
        "heart-failure-before",
    ),
    Patient(
        "p16",
        "ICD-9 with dots, version in words",
        [(ECG, "p16")],
        [("2009-01-01", "401.9", "ICD-9-CM"), ("2021-06-01", "404.03", "icd9")],
        [END],
        [],
        ("p16", 1, 0, 448.0),
    ),
    Patient(
        "p17",
        "heart failure after the last contact",
        [(ECG, "p17")],
        [HTN, ("2021-06-01", "I50.9", "10")],
        ["2020-12-01", "2021-01-01"],
        [],
        ("p17", 0, 0, 297.0),
    ),
    Patient("p18", "no follow-up at all", [(ECG, "p18")], [HTN], [], [], "no-follow-up"),
    Patient("p19", "last contact on the ECG's day", [(ECG, "p19")], [HTN], [ECG], [], "no-follow-up"),
    Patient(
        "p20",
        "an event, but no last contact: kept, it would be chosen by its outcome",
        [(ECG, "p20")],
        [HTN, ("2021-06-01", "I50.9", "10")],
        [],
        [],
        "no-follow-up",
    ),
    Patient("p21", "ECG after death", [(ECG, "p21")], [HTN], [END], ["2020-01-01"], "faults"),
    Patient(
        "p22",
        "heart failure coded after death",
        [(ECG, "p22")],
        [HTN, ("2021-06-01", "I50.9", "10")],
        [END],
        ["2021-01-01"],
        "faults",
    ),
    Patient("p23", "a date that is none", [("2020-13-45", "p23")], [HTN], [END], [], "faults"),
    Patient(
        "p24", "rows twice", [(ECG, "p24"), (ECG, "p24")], [HTN, HTN], [END, END], [], ("p24", 0, 0, 730.0)
    ),
    Patient(
        "p25",
        "time zone: 23:30 UTC is the next day in Berlin, the day of the heart failure",
        [("2020-03-10T23:30:00+00:00", "p25")],
        [HTN, ("2020-03-11", "I50.9", "10")],
        [END],
        [],
        "heart-failure-on-day",
    ),
    Patient(
        "p26",
        "times on both sides: fractions of days",
        [("2020-03-10 06:00", "p26")],
        [HTN, ("2020-03-12 18:00", "I50.9", "10")],
        [END],
        [],
        ("p26", 1, 0, 2.5),
    ),
    Patient(
        "p27",
        "I1 and I16 are not in I10-I15",
        [(ECG, "p27")],
        [("2019-01-01", "I1", "10"), ("2019-01-01", "I16.0", "10")],
        [END],
        [],
        "no-inclusion",
    ),
    Patient("p28", "two days of death", [(ECG, "p28")], [HTN], [END], ["2021-01-01", "2021-02-01"], "faults"),
    Patient("p29", "born after the ECG", [(ECG, "p29")], [HTN], [END], [], "faults", birth_year="2021"),
    Patient(
        "p30",
        "heart failure after 20 days; a man of unknown age",
        [(ECG, "p30")],
        [HTN, ("2020-03-30", "I50.9", "10")],
        [END],
        [],
        ("p30", 1, 0, 20.0),
        birth_year="",
        sex="m",
    ),
]

SETTINGS = """
[rules]
base = "paper-hyp"
[ecgs]
table = "ecgs.csv"
people = "people.csv"
[diagnoses]
table = "diagnoses.csv"
[follow-up]
end-table = "contacts.csv"
death-table = "deaths.csv"
[exclude]
faults = "leave-out"
[columns]
time-zone = "Europe/Berlin"
[columns.people]
birth-year = "born"
sex = "sex"
[split]
test = 0.25
"""


def tables(patients: list[Patient]) -> dict[str, list[tuple[str, ...]]]:
    """The hospital's tables, head first."""
    found: dict[str, list[tuple[str, ...]]] = {
        "ecgs.csv": [("patient", "date", "file")],
        "diagnoses.csv": [("patient", "date", "code", "version"), ("stranger", "2019-01-01", "I10", "10")],
        "contacts.csv": [("patient", "date")],
        "deaths.csv": [("patient", "date")],
        "people.csv": [("patient", "born", "sex")],
    }
    for one in patients:
        found["ecgs.csv"] += [(one.name, *ecg) for ecg in one.ecgs]
        found["diagnoses.csv"] += [(one.name, *diagnosis) for diagnosis in one.diagnoses]
        found["contacts.csv"] += [(one.name, day) for day in one.contacts]
        found["deaths.csv"] += [(one.name, day) for day in one.deaths]
        found["people.csv"] += [(one.name, one.birth_year, one.sex)]
    return found


def write_hospital(
    folder: Path, settings: str = SETTINGS, made: dict[str, list[tuple[str, ...]]] | None = None
) -> Path:
    """Write the tables and COHORT.toml; returns the latter."""
    for name, rows in (made or tables(HOSPITAL)).items():
        (folder / name).write_text("".join(",".join(row) + "\n" for row in rows))
    file = folder / "cohort.toml"
    file.write_text(settings)
    return file
