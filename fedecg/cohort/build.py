"""From a hospital's tables to a cohort: the rules, one after the other.

In:  `CohortSettings`. Out: `BuiltCohort`: one index ECG a patient, the outcome, the parts, the flow.
     Called by `fedecg cohort build`. docs/cohort.md says the same rules to a clinician;
     tests/cohort/test_cohort_rules.py has a patient for each.

"Before", "on" and "after" compare calendar days. A patient leaves at the first rule that is not met, in this order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from fedecg.cohort.build_dates import NO_DAY, Moments, days_between, no_moments
from fedecg.cohort.build_faults import Faults
from fedecg.cohort.build_records import Hospital, read_hospital
from fedecg.cohort.build_rules import rules_in_words, titles
from fedecg.cohort.build_settings import CohortSettings
from fedecg.cohort.build_splits import keyed_order, parts_by_patient
from fedecg.cohort.flow import Flow, PartCount, Step
from fedecg.errors import CohortError
from fedecg.progress import Advance

__all__ = ["BuiltCohort", "build_cohort"]

Int = NDArray[np.int64]
Float = NDArray[np.float64]
Mask = NDArray[np.bool_]
BEYOND = 10_000_000  # more days than the calendar has


@dataclass(frozen=True, eq=False)
class BuiltCohort:
    """One row a patient, in the order of a keyed hash.

    Attributes:
        file, record: of the index ECG; record is -1 without a store. event, died: (n,) bool.
        follow_up_days, entry_days, age_years, female: (n,) float64.
        codes: n dictionaries, what the index ECG is said to show.
        parts: one (n,) array without folds, else one a fold. flow: with all counts.
        fates: patient -> key of the step at which the patient left, or "cohort". It never leaves memory.
    """

    file: NDArray[np.object_]
    record: Int
    event: Mask
    died: Mask
    follow_up_days: Float
    entry_days: Float
    age_years: Float
    female: Float
    codes: tuple[dict[str, float], ...]
    parts: list[NDArray[np.str_]]
    flow: Flow
    fates: dict[str, str] = field(repr=False)
    order: dict[str, int] = field(repr=False)  # patient -> row


def build_cohort(settings: CohortSettings, advance: Advance | None = None) -> BuiltCohort:
    """Read the tables and apply the rules.

    Args:
        advance: is told how far the tables are, in percent.

    Raises:
        CohortError: FECG-286 tables; FECG-287..290 faults in them, or FECG-293 several, unless they are left out;
            FECG-291 nobody remains; FECG-292 the signal store does not fit.
        SignalError: FECG-215, FECG-216 the signal store.
    """
    hospital = read_hospital(settings, advance)
    if settings.exclude.faults == "stop":
        hospital.faults.refuse()
    hospital.faults.refuse_settings()
    fates = _Fates(hospital)
    faulty = [name in hospital.faults.patients for name in hospital.patients]
    fates.leave("faults", "rows that cannot be used", np.array(faulty, dtype=np.bool_))
    if not len(hospital.ecgs.patient):
        _refuse_empty(fates.steps, hospital.faults)
    index = _index_ecgs(hospital, settings, fates)
    ecg = hospital.ecgs.when.select(index)
    _leave_prevalent(hospital, settings, ecg, fates)
    outcome = _outcomes(hospital, settings, ecg)
    fates.leave("no-follow-up", "no follow-up after the ECG", ~(outcome.days > 0))
    entry = _leave_washed_out(settings, outcome, fates)
    return _assembled(hospital, settings, fates, index, outcome, entry)


class _Fates:
    """Where each patient left, kept while the rules are applied."""

    def __init__(self, hospital: Hospital) -> None:
        self.fate = np.full(len(hospital.patients), "cohort", dtype=object)
        self.steps: list[Step] = []

    @property
    def here(self) -> Mask:
        """(P,) who has not left."""
        return np.array(self.fate == "cohort", dtype=np.bool_)

    def leave(self, key: str, text: str, leaving: Mask) -> None:
        """Those of `leaving` (P,) who are still here leave now."""
        leaving = leaving & self.here
        self.fate[leaving] = key
        self.steps.append(Step(key, text, int(leaving.sum()), int(self.here.sum())))


@dataclass(frozen=True, eq=False)
class _Outcomes:
    """(P,) each; what they say of patients who left is without meaning."""

    days: Float  # from the ECG to event, death or last contact; NaN = no follow-up known
    event: Mask
    died: Mask
    event_after: Int  # calendar days to the event


def _index_ecgs(hospital: Hospital, settings: CohortSettings, fates: _Fates) -> Int:
    """(P,) row of each patient's index ECG, any row for those who have none."""
    ecgs, size = hospital.ecgs, len(hospital.patients)
    fates.leave("no-ecg", "no usable ECG with a date", ~_has(ecgs.patient[ecgs.usable], size))
    met = ecgs.usable.copy()
    lists = settings.include.code_lists()
    if lists:
        who, when = hospital.diagnoses.of(lists)
        title = titles(lists)
        fates.leave("no-inclusion", f"no diagnosis of {title}", ~_has(who, size))
        latest = _latest_day(who, when.day, ecgs.patient, ecgs.when.day)
        met &= latest != NO_DAY
        within = settings.include.within_days
        if within:
            met &= ecgs.when.day - latest <= within
        span = f" in the {within} days up to" if within else " on or before"
        fates.leave("inclusion-late", f"no ECG with {title}{span} its day", ~_has(ecgs.patient[met], size))
    rows = np.flatnonzero(met)
    second = np.nan_to_num(ecgs.when.second[rows], nan=-1.0)
    file = np.unique(ecgs.file[rows].astype(str), return_inverse=True)[
        1
    ]  # a tie is broken by the file's name
    sort = np.lexsort((file, second, ecgs.when.day[rows], ecgs.patient[rows]))
    rows = rows[sort][::-1] if settings.ecgs.choose == "first" else rows[sort]
    index = np.zeros(size, dtype=np.int64)
    index[ecgs.patient[rows]] = rows  # of several rows the last one stays
    return index


def _leave_prevalent(hospital: Hospital, settings: CohortSettings, ecg: Moments, fates: _Fates) -> None:
    """Excluded diagnoses before the ECG, then on its day; the event's own diagnosis always is one of them."""
    everyone = np.arange(len(ecg))
    lists = {one.name: one for one in (*settings.exclude.code_lists(), *settings.event.code_lists())}
    for one in lists.values():
        who, when = hospital.diagnoses.of([one])
        latest = _latest_day(who, when.day, everyone, ecg.day)
        before = _latest_day(who, when.day, everyone, ecg.day - 1)
        fates.leave(f"{one.name}-before", f"{one.title} before the ECG", before != NO_DAY)
        fates.leave(f"{one.name}-on-day", f"{one.title} on the day of the ECG", latest == ecg.day)


def _outcomes(hospital: Hospital, settings: CohortSettings, ecg: Moments) -> _Outcomes:
    """What ended each patient's time: the event, death before it, or the last contact.

    Whoever has neither a last contact nor a death has no follow-up, event or not: to keep those of them who had the
    event would be to choose patients by their outcome. On a day without times, event comes before death before contact.
    """
    who, when = hospital.diagnoses.of(settings.event.code_lists())
    event, death = _first_after(who, when, ecg), hospital.death
    end = _either(hospital.end.known, hospital.end, death)  # whoever died was seen until then
    seen = event.known & end.known & ~_is_before(death, event) & ~_is_before(end, event)
    died = death.known & ~seen & ~_is_before(end, death)
    last = _either(seen, event, _either(died, death, end))
    return _Outcomes(days_between(ecg, last), seen, died, event.day - ecg.day)


def _leave_washed_out(settings: CohortSettings, outcome: _Outcomes, fates: _Fates) -> Float:
    """Apply the wash-out; returns (P,) the day from which each patient is under observation."""
    days = settings.event.wash_out_days
    nobody = np.zeros(len(outcome.days), dtype=np.bool_)
    if not days:
        return nobody.astype(np.float64)
    if settings.event.wash_out == "drop":
        early = outcome.event & (outcome.event_after <= days)
        fates.leave("wash-out", f"the event in the {days} days after the ECG", early)
        return nobody.astype(np.float64)
    text = f"event, death or end of follow-up in the {days} days after the ECG"
    fates.leave("wash-out", text, ~(outcome.days > days) | outcome.event & (outcome.event_after <= days))
    return np.full(len(outcome.days), float(days))


def _assembled(
    hospital: Hospital, settings: CohortSettings, fates: _Fates, index: Int, outcome: _Outcomes, entry: Float
) -> BuiltCohort:
    here = np.flatnonzero(fates.here)
    if not here.size:
        _refuse_empty(fates.steps, hospital.faults)
    names = [hospital.patients[one] for one in here]
    order = keyed_order(names, settings.split.seed)
    who, names = here[order], [names[one] for one in order]
    ecgs, row = hospital.ecgs, index[here[order]]
    event = outcome.event[who]
    parts = parts_by_patient(names, event, settings.split)
    stated = ecgs.age_years[row]
    age = np.where(np.isnan(stated), hospital.people.age_years(who, ecgs.when.day[row]), stated)
    return BuiltCohort(
        file=ecgs.file[row],
        record=ecgs.record[row],
        event=event,
        died=outcome.died[who],
        follow_up_days=outcome.days[who],
        entry_days=entry[who],
        age_years=age,
        female=hospital.people.female[who],
        codes=tuple(ecgs.codes[row]),
        parts=parts,
        flow=_flow(hospital, settings, fates, who, outcome, parts),
        fates=dict(zip(hospital.patients, (str(one) for one in fates.fate), strict=True)),
        order={name: number for number, name in enumerate(names)},
    )


def _flow(
    hospital: Hospital,
    settings: CohortSettings,
    fates: _Fates,
    who: Int,
    outcome: _Outcomes,
    parts: list[NDArray[np.str_]],
) -> Flow:
    event, died = outcome.event[who], outcome.died[who]
    counted = tuple(
        PartCount(
            fold if settings.split.folds else 0,
            name,
            int(np.sum(part == name)),
            int(np.sum(event[part == name])),
        )
        for fold, part in enumerate(parts, start=1)
        for name in ("train", "validation", "test")
    )
    notes = _part_notes(counted, settings)
    unseen = int(np.sum(hospital.death.known[who] & ~event & ~died))
    if unseen:
        notes.append(f"{unseen} deaths after the last contact are not counted: censored at that contact")
    return Flow(
        title="cohort",
        patients=len(hospital.patients),
        ecgs=hospital.counts["ECGs"],
        steps=tuple(fates.steps),
        cohort=len(who),
        events=int(event.sum()),
        died=int(died.sum()),
        censored=int(np.sum(~event & ~died)),
        event_title=titles(settings.event.code_lists()),
        median_follow_up_days=float(np.median(outcome.days[who])),
        parts=counted,
        notes=(*hospital.notes, *notes),
        faults=tuple(hospital.faults.as_json()),
        rules=rules_in_words(settings),
    )


def _part_notes(parts: Sequence[PartCount], settings: CohortSettings) -> list[str]:
    """Parts that the shares leave without anybody, and parts without an event: nothing can be measured in them."""
    shares = {"validation": settings.split.validation, "test": settings.split.folds or settings.split.test}
    nobody = sorted({one.part for one in parts if not one.patients and shares.get(one.part, 1)})
    no_event = sorted({one.part for one in parts if one.patients and not one.events})
    return [
        *(f"the part {name} has no patient: the cohort is too small for its share" for name in nobody),
        *(f"no patient of the part {name} has an event" for name in no_event),
    ]


def _latest_day(who: Int, day: Int, patient: Int, at: Int) -> Int:
    """(n,) the latest of a patient's days up to and with `at`; NO_DAY where there is none.

    Args:
        who, day: (m,) patients and their days. patient, at: (n,) whom and when to look for.
    """
    keys = np.sort(who * BEYOND + day)
    place = np.searchsorted(keys, patient * BEYOND + at, side="right") - 1
    found = keys[np.maximum(place, 0)] if keys.size else np.full(len(patient), -1)
    return np.where((place >= 0) & (found // BEYOND == patient), found % BEYOND, NO_DAY)


def _first_after(who: Int, when: Moments, ecg: Moments) -> Moments:
    """(P,) the first of each patient's moments on a later day than the ECG's."""
    later = when.day > ecg.day[who]
    who, when = who[later], when.select(later)
    order = np.lexsort((np.nan_to_num(when.second, nan=-1.0), when.day, who))[::-1]
    first = no_moments(len(ecg))
    first.day[who[order]] = when.day[order]  # of several the last written stays: the earliest
    first.second[who[order]] = when.second[order]
    return first


def _either(where: Mask, one: Moments, other: Moments) -> Moments:
    """(n,) `one` where the mask says so, else `other`."""
    return Moments(
        np.where(where, one.day, other.day),
        np.where(where, one.second, other.second),
        other.unreadable,
        other.offset,
    )


def _is_before(one: Moments, other: Moments) -> Mask:
    """(n,) both known, and the first earlier."""
    return np.array(days_between(one, other) > 0, dtype=np.bool_)


def _has(patient: Int, size: int) -> Mask:
    """(size,) whether a patient is among the rows."""
    return np.bincount(patient, minlength=size) > 0


def _refuse_empty(steps: Sequence[Step], faults: Faults) -> NoReturn:
    left = ", ".join(f"{step.text} {step.left}" for step in steps if step.left)
    what = "; ".join(f"{one.code} {one.what}: {one.found}" for one in faults.found)
    raise CohortError(
        "FECG-291",
        "cohort",
        found=f"0 patients who meet all rules; left: {left or 'nobody, there was no patient'}"
        + (f" (rows that cannot be used are {what})" if what else ""),
        expected="at least 1",
        fix="Check the names in [columns], the version of the codes and the dates.",
    )
