"""The age + sex control: lifelines' pooled fit on ordinary data, and what is left where a column says nothing."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter

from fedecg.cohort import Cohort
from fedecg.evaluation import age_sex_risk


def cohort(seed: int, patients: int = 400) -> Cohort:
    rng = np.random.default_rng(seed)
    age, female = rng.normal(60, 12, patients), rng.integers(0, 2, patients).astype(np.float64)
    days = np.ceil(rng.exponential(2000 * np.exp(-0.05 * (age - 60) + 0.4 * female)))
    leaves = rng.integers(100, 1500, patients)
    age[rng.random(patients) < 0.05] = np.nan
    female[rng.random(patients) < 0.05] = np.nan
    return Cohort(
        record=np.arange(patients),
        patient=np.arange(patients),
        part=np.full(patients, "train"),
        event=days <= leaves,
        follow_up_days=np.minimum(days, leaves).astype(np.float64),
        entry_days=np.zeros(patients),
        died=np.zeros(patients, dtype=np.bool_),
        age_years=age,
        female=female,
        codes=({},) * patients,
    )


TRAIN, TEST = cohort(1), cohort(2, 150)
NOTHING = np.full(400, np.nan)


def by_lifelines(train: Cohort, test: Cohort, *columns: str) -> np.ndarray:
    def table(part: Cohort) -> pd.DataFrame:
        return pd.DataFrame({name: getattr(part, name) for name in columns}).fillna(
            {name: np.nanmedian(getattr(train, name)) for name in columns}
        )

    outcome = table(train).assign(days=train.follow_up_days, event=train.event, entry=train.entry_days)
    late = {"entry_col": "entry"} if train.entry_days.any() else {}
    if not late:
        outcome = outcome.drop(columns="entry")
    fitted = CoxPHFitter(penalizer=1e-3).fit(outcome, "days", "event", **late)
    return fitted.predict_log_partial_hazard(table(test)).to_numpy()


def test_log_hazards_are_those_of_lifelines_on_ordinary_data() -> None:
    risk = age_sex_risk(TRAIN, TEST)
    assert risk is not None
    assert np.ptp(risk) > 2
    assert risk == pytest.approx(by_lifelines(TRAIN, TEST, "age_years", "female"), abs=1e-4)


def test_late_entry_is_that_of_lifelines() -> None:
    entry = np.where(np.arange(400) % 3 == 0, np.floor(TRAIN.follow_up_days / 3), 0)
    late = replace(TRAIN, entry_days=entry)
    risk = age_sex_risk(late, TEST)
    assert risk == pytest.approx(by_lifelines(late, TEST, "age_years", "female"), abs=1e-4)
    assert np.abs(risk - age_sex_risk(TRAIN, TEST)).max() > 1e-3


def test_without_any_age_the_model_is_of_sex_alone() -> None:
    train = replace(TRAIN, age_years=NOTHING)
    assert age_sex_risk(train, TEST) == pytest.approx(by_lifelines(train, TEST, "female"), abs=1e-4)


@pytest.mark.parametrize("sex", [0.0, 1.0])
def test_a_cohort_of_one_sex_keeps_its_age(sex: float) -> None:
    train = replace(TRAIN, female=np.where(np.isnan(TRAIN.female), np.nan, sex))
    assert age_sex_risk(train, TEST) == pytest.approx(by_lifelines(train, TEST, "age_years"), abs=1e-4)


def test_nothing_to_tell_patients_by_is_no_model() -> None:
    assert age_sex_risk(replace(TRAIN, age_years=NOTHING, female=NOTHING), TEST) is None
    assert age_sex_risk(replace(TRAIN, age_years=NOTHING, female=np.ones(400)), TEST) is None
    assert age_sex_risk(TRAIN.select(np.zeros(400, dtype=bool)), TEST) is None


def test_no_event_is_no_model() -> None:
    assert age_sex_risk(replace(TRAIN, event=np.zeros(400, dtype=bool)), TEST) is None


def test_a_single_event_still_gives_a_finite_model() -> None:
    event = np.zeros(400, dtype=bool)
    event[np.nanargmax(TRAIN.age_years)] = True
    risk = age_sex_risk(replace(TRAIN, event=event), TEST)
    assert risk is not None
    assert np.isfinite(risk).all()


def test_test_patients_without_age_or_sex_take_the_training_median() -> None:
    blank = replace(TEST, age_years=np.full(150, np.nan), female=np.full(150, np.nan))
    risk = age_sex_risk(TRAIN, blank)
    assert risk is not None
    assert np.ptp(risk) == 0
