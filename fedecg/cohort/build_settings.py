"""COHORT.toml: which tables, which columns, which rules. Strict, every problem in one message.

In:  a TOML file (kebab-case keys); `[rules] base` takes a rule set of the package, which the file's keys override.
Out: frozen `CohortSettings`, paths absolute. Called by `fedecg cohort build`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from fedecg.cohort.icd import CodeList, code_list, code_list_names, is_entry
from fedecg.config import Section, parse_settings
from fedecg.errors import SettingsError
from fedecg.files import in_words, read_regular

__all__ = ["RULE_SETS", "CohortSettings", "TableColumns", "load_cohort_settings"]

RULES = Path(__file__).with_name("rules")
RULE_SETS = ("paper-hyp", "paper-mi")
Share = Annotated[float, Field(ge=0, lt=1)]
Days = Annotated[int, Field(ge=0, le=36_525)]
TablePath = Annotated[str, Field(min_length=1)]


def _known_list(name: str) -> str:
    if name not in code_list_names():
        raise ValueError(f"expected one of {', '.join(code_list_names())}")
    return name


def _entry(entry: str) -> str:
    if not is_entry(entry):
        raise ValueError('expected a code ("I50", "402.01") or a range of codes of one length ("I10-I15")')
    return entry


def _zone(name: str) -> str:
    if name:
        try:
            ZoneInfo(name)
        except (ValueError, OSError):  # ZoneInfoNotFoundError is a KeyError on some systems
            raise ValueError('expected the name of a time zone, such as "Europe/Berlin"') from None
        except KeyError:
            raise ValueError('expected the name of a time zone, such as "Europe/Berlin"') from None
    return name


def _day(text: str) -> str:
    if text:
        date.fromisoformat(text)
    return text


def _as_text(value: object) -> object:
    """A date that TOML reads as one, since it stands there without quotes, as it was written."""
    if isinstance(value, datetime):
        raise ValueError('expected a date without a time, such as "2024-06-30"')
    return value.isoformat() if isinstance(value, date) else value


Day = Annotated[str, BeforeValidator(_as_text), AfterValidator(_day)]
Lists = list[Annotated[str, AfterValidator(_known_list)]]
Entries = list[Annotated[str, AfterValidator(_entry)]]


class CodeRule(Section):
    """Diagnoses by named lists, by codes of one's own, or both."""

    lists: Lists = []
    icd_9: Entries = []
    icd_10: Entries = []

    def code_lists(self) -> tuple[CodeList, ...]:
        """Every list of the rule; codes of one's own are the last, named by what they are."""
        name = f"own codes {', '.join([*self.icd_9, *self.icd_10])}"
        own = CodeList(name, "own codes", tuple(self.icd_9), tuple(self.icd_10))
        named = tuple(code_list(name) for name in self.lists)
        return (*named, own) if self.icd_9 or self.icd_10 else named


class RulesSection(Section):
    """Where the rules begin."""

    base: Literal["", "paper-hyp", "paper-mi"] = ""


class EcgsSection(Section):
    """The ECGs, who they are of, and which of them is a patient's index ECG."""

    table: TablePath
    choose: Literal["first", "last"] = "first"  # of those on or after the inclusion diagnosis
    store: str = ""  # folder of the signal store that `fedecg data ingest` made; none: file names are written
    people: str = ""  # table of birth or age, and sex


class DiagnosesSection(Section):
    """Dated codes."""

    table: TablePath
    version: Literal["column", "9", "10"] = "column"
    admissions: str = ""  # table that dates them; none: the diagnoses have a date themselves
    dated_by: Literal["admission", "discharge"] = "admission"


class FollowUpSection(Section):
    """How long a patient would have been seen with the event, and who died."""

    end_table: str = ""  # last contact; of several rows a patient the latest counts
    end_date: Day = ""  # administrative end, for all; the earlier of the two counts
    death_table: str = ""

    @model_validator(mode="after")
    def _some_end(self) -> FollowUpSection:
        if not self.end_table and not self.end_date:
            raise ValueError(
                "expected end-table, end-date or both: deaths alone do not say how long the living were seen"
            )
        return self


class IncludeSection(CodeRule):
    """Diagnoses of which at least one is dated on or before the day of the index ECG. None at all: everybody."""

    within_days: Days = 0  # at most so long before it; 0 = at any time before


class ExcludeSection(CodeRule):
    """Diagnoses that none may have before the index ECG or on its day."""

    faults: Literal["stop", "leave-out"] = (
        "stop"  # patients whose rows cannot be used: say so, or go on without them
    )


class EventSection(CodeRule):
    """What is to be predicted: the first such diagnosis after the day of the ECG."""

    wash_out_days: Days = 0
    wash_out: Literal["drop", "late-entry"] = "drop"

    @model_validator(mode="after")
    def _some_code(self) -> EventSection:
        if not self.code_lists():
            raise ValueError("expected lists, icd-9 or icd-10")
        return self


class TableColumns(Section):
    """Names of columns; every table of patients has one of them."""

    patient: str = "patient"


class EcgColumns(TableColumns):
    """Of the table of ECGs."""

    date: str = "date"
    file: str = "file"  # as [ecgs] store has it, or its last part
    index: str = ""  # which ECG of a file that holds several, as the store counts them
    age: str = ""  # at the ECG, years
    codes: str = ""  # what the ECG is said to show: {"LVH": 100}, or LVH;AFIB


class DiagnosisColumns(TableColumns):
    """Of the table of diagnoses: `code` and `version`, or a column for each version."""

    date: str = "date"  # unless there are admissions
    admission: str = "admission"
    code: str = "code"
    version: str = "version"
    code_9: str = ""
    code_10: str = ""


class AdmissionColumns(TableColumns):
    """Of the table of admissions; `admission` need only be unique for a patient."""

    admission: str = "admission"
    admitted: str = "admitted"
    discharged: str = "discharged"


class EndColumns(TableColumns):
    """Of the table of last contacts."""

    date: str = "date"


class PeopleColumns(TableColumns):
    """Of the table of people; an empty name: not there."""

    birth_date: str = ""
    birth_year: str = ""
    age: str = ""  # years, in the year of `age-year`
    age_year: str = ""
    sex: str = ""
    female: list[str] = ["f", "female", "w", "weiblich"]  # cells of `sex`, whatever the case
    male: list[str] = ["m", "male", "männlich"]

    @model_validator(mode="after")
    def _age_is_dated(self) -> PeopleColumns:
        if bool(self.age) != bool(self.age_year):
            raise ValueError("expected age with age-year (an age at the ECG belongs into columns.ecgs)")
        if sum(map(bool, (self.birth_date, self.birth_year, self.age))) > 1:
            raise ValueError("expected one of birth-date, birth-year and age")
        return self


class ColumnsSection(Section):
    """What the columns are called and how dates are written."""

    ecgs: EcgColumns = EcgColumns()
    diagnoses: DiagnosisColumns = DiagnosisColumns()
    admissions: AdmissionColumns = AdmissionColumns()
    follow_up: EndColumns = EndColumns()
    deaths: EndColumns = EndColumns()
    people: PeopleColumns = PeopleColumns()
    dates: Literal["iso", "day-first", "month-first"] = "iso"  # never guessed: 03/04/2020 is two days
    no_date: list[
        Annotated[str, BeforeValidator(_as_text)]
    ] = []  # cells that stand for no date, such as "1900-01-01"
    time_zone: Annotated[str, AfterValidator(_zone)] = (
        ""  # of the hospital; needed where times carry an offset
    )


class PatientsSection(Section):
    """Patients' numbers in the tables that are written."""

    key: str = ""  # file of the key that makes them, made once; "": patients.key in --out


class SplitSection(Section):
    """Parts, by patient, in the same shares among patients with and without an event."""

    validation: Share = 0.1  # of all patients
    test: Share = 0.2  # of all patients; with folds: one of them
    folds: Annotated[int, Field(ge=0, le=20)] = (
        0  # 0: one cohort; 2 or more: a cohort for each fold as test part
    )
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @model_validator(mode="after")
    def _leaves_some_to_train(self) -> SplitSection:
        if self.folds == 1:
            raise ValueError("expected folds = 0, or at least 2")
        if self.folds and "test" in self.model_fields_set:
            raise ValueError("expected test or folds, not both: the test part is one fold")
        if self.validation + (1 / self.folds if self.folds else self.test) >= 1:
            raise ValueError("expected validation and test to leave some to train")
        return self


class CohortSettings(Section):
    """One cohort of one site."""

    rules: RulesSection = RulesSection()
    ecgs: EcgsSection
    diagnoses: DiagnosesSection
    follow_up: FollowUpSection
    include: IncludeSection = IncludeSection()
    exclude: ExcludeSection = ExcludeSection()
    event: EventSection
    columns: ColumnsSection = ColumnsSection()
    patients: PatientsSection = PatientsSection()
    split: SplitSection = SplitSection()


def load_cohort_settings(path: str | Path) -> CohortSettings:
    """Read COHORT.toml, on top of the rule set that it names; paths in it start from its folder.

    Raises:
        SettingsError: FECG-285 no file, or not TOML; FECG-103 every problem of the file at once.
    """
    path = Path(path)
    tree = _read(path)
    base = tree.get("rules", {}).get("base", "") if isinstance(tree.get("rules", {}), dict) else ""
    if base in RULE_SETS:
        tree = _over(_read(RULES / f"{base}.toml"), tree)
    settings = parse_settings(CohortSettings, tree, "fedecg cohort build --help shows them", path.name)
    return _from_folder(settings, path.resolve().parent)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_regular(path).decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        # The place in the file, never its text: that is made of paths.
        place = f" ({str(error).rpartition('(')[2]:.40}" if isinstance(error, tomllib.TOMLDecodeError) else ""
        raise SettingsError(
            "FECG-285",
            "COHORT.toml",
            found=in_words(error) + place,
            expected="a TOML file, UTF-8",
            fix="fedecg cohort build --help shows one.",
        ) from None


def _over(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The base with the keys of one's own in place of its own, section by section."""
    merged = dict(base)
    for key, value in own.items():
        nested = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _over(merged[key], value) if nested else value
    if "test" in own and "folds" not in own:  # whoever asks for a test part wants no folds
        merged.pop("folds", None)
    return merged


def _from_folder(settings: CohortSettings, folder: Path) -> CohortSettings:
    absolute = partial(_absolute, folder)
    return settings.model_copy(
        update={
            "ecgs": absolute(settings.ecgs, ("table", "store", "people")),
            "diagnoses": absolute(settings.diagnoses, ("table", "admissions")),
            "follow_up": absolute(settings.follow_up, ("end_table", "death_table")),
            "patients": absolute(settings.patients, ("key",)),
        }
    )


def _absolute(folder: Path, section: Section, names: tuple[str, ...]) -> Section:
    paths = {name: getattr(section, name) for name in names}
    return section.model_copy(update={name: str(folder / path) for name, path in paths.items() if path})
