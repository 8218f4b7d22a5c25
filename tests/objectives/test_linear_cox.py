"""The federated Cox model of a table: equal to lifelines' and scikit-survival's pooled fits, from sums alone."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sksurv.datasets
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter
from lifelines.datasets import load_rossi
from lifelines.statistics import proportional_hazard_test
from numpy.typing import NDArray
from sksurv.linear_model import CoxPHSurvivalAnalysis

from fedecg.errors import ModelError
from fedecg.evaluation import concordance
from fedecg.objectives.hazard import public_grid
from fedecg.objectives.linear_cox import CoxFit, CoxSettings, exact_grid, fit_linear_cox, maximise
from fedecg.objectives.linear_cox_inference import (
    baselines,
    cox_inference,
    gap_to_exact,
    proportional_hazards,
    residual_sums,
    score_curves,
    site_residuals,
)
from fedecg.objectives.linear_cox_sums import (
    CoxPatients,
    EventSums,
    RiskSums,
    Scaling,
    Stratum,
    event_sums,
    partial_likelihood,
    risk_sums,
    site_design,
)

Floats = NDArray[np.float64]
TIGHT = {"precision": 1e-20, "r_precision": 0.0}  # lifelines stops at 1e-7 otherwise
NAMES = ("rossi", "whas500", "gbsg2", "flchain")
EVERYBODY = CoxSettings()


@dataclass(frozen=True, eq=False)
class Data:
    """Columns `T`, `E` and covariates of a published data set."""

    frame: pd.DataFrame

    @property
    def names(self) -> list[str]:
        return [name for name in self.frame if name not in ("T", "E")]

    def patients(self, rows: Floats | slice = slice(None)) -> CoxPatients:
        part = self.frame.iloc[rows]
        return CoxPatients(
            part["T"].to_numpy(np.float64),
            part["E"].to_numpy(np.float64) == 1,
            part[self.names].to_numpy(np.float64),
        )

    def sites(self, site: NDArray[np.int64]) -> list[CoxPatients]:
        return [self.patients(np.flatnonzero(site == number)) for number in range(site.max() + 1)]


@lru_cache
def data_set(name: str) -> Data:
    if name == "rossi":
        return Data(load_rossi().rename(columns={"week": "T", "arrest": "E"}))
    x, y = getattr(sksurv.datasets, f"load_{name}")()
    x = x.drop(columns="chapter", errors="ignore")  # flchain: cause of death, which only the dead have
    event, time = y.dtype.names
    frame = pd.get_dummies(x, drop_first=True, dtype=float).astype(float)
    return Data(frame.assign(T=y[time], E=y[event].astype(float)).dropna().reset_index(drop=True))


@lru_cache
def lifelines_fit(name: str) -> CoxPHFitter:
    return CoxPHFitter().fit(data_set(name).frame, "T", "E", fit_options=TIGHT)


def at_random(event: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int64]:
    return rng.integers(0, 4, event.size)


def by_size(event: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int64]:
    return rng.permutation(
        np.repeat(np.arange(4), np.array([70, 20, 8, 2]) * event.size // 100 + 1)[: event.size]
    )


def one_without_events(event: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int64]:
    return np.where(event, rng.integers(0, 3, event.size), rng.integers(0, 4, event.size))


SPLITS = (at_random, by_size, one_without_events)
Split = Callable[[NDArray[np.bool_], np.random.Generator], NDArray[np.int64]]


@lru_cache
def federated(name: str, split: Split, options: CoxSettings = EVERYBODY) -> tuple[CoxFit, list[CoxPatients]]:
    data = data_set(name)
    sites = data.sites(split(data.frame["E"].to_numpy() == 1, np.random.default_rng(7)))
    return fit_linear_cox(sites, data.names, options), sites


def relative(found: Floats, expected: Floats) -> float:
    """|d beta| / |beta|, of the whole vector and of its worst component."""
    whole = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    return float(max(whole, np.abs(found / expected - 1).max()))


# ---------------------------------------------------------------- worked by hand


def test_three_patients_without_ties_give_minus_half_log_2() -> None:
    # u = exp(beta): L = u / (2u + 1) * 1 / (1 + u), whose derivative vanishes at u^2 = 1/2.
    patients = CoxPatients(np.array([1.0, 2, 3]), np.array([True, True, False]), np.array([[1.0], [0], [1]]))
    fit = fit_linear_cox([patients], ["x"], EVERYBODY)
    u = math.sqrt(0.5)
    information = 2 * u / (2 * u + 1) ** 2 + u / (1 + u) ** 2
    assert fit.coefficients[0] == pytest.approx(-math.log(2) / 2, abs=1e-10)
    assert cox_inference(fit).se[0] == pytest.approx(information**-0.5, rel=1e-12)
    assert fit.optimum.log_likelihood == pytest.approx(math.log(u / (2 * u + 1) / (1 + u)), abs=1e-12)
    assert fit.optimum.log_likelihood_null == pytest.approx(-math.log(6), abs=1e-12)
    hazard = baselines(fit)[0].at(np.array([0.5, 1.0, 2.5])) * u ** (-2 / 3)  # of x = 0, not of the mean
    assert hazard == pytest.approx([0, 1 / (2 * u + 1), 1 / (2 * u + 1) + 1 / (1 + u)], abs=1e-12)


def test_two_tied_events_give_log_6_over_2_by_efron_and_log_2_by_breslow() -> None:
    # Efron: L = u / ((u + 2) (u + 3) / 2), best at u^2 = 6; Breslow: L = u / (u + 2)^2, best at u = 2.
    patients = CoxPatients(np.array([1.0, 1, 4]), np.array([True, True, False]), np.array([[1.0], [0], [0]]))
    efron = fit_linear_cox([patients], ["x"], CoxSettings("efron"))
    breslow = fit_linear_cox([patients], ["x"], CoxSettings("breslow"))
    assert efron.coefficients[0] == pytest.approx(math.log(6) / 2, abs=1e-10)
    assert breslow.coefficients[0] == pytest.approx(math.log(2), abs=1e-10)


def test_all_events_at_one_time_leave_proportional_hazards_undefined() -> None:
    patients = CoxPatients(np.array([1.0, 1, 4]), np.array([True, True, False]), np.array([[1.0], [0], [0]]))
    check = proportional_hazards(fit_linear_cox([patients], ["x"], EVERYBODY))
    assert np.isnan(check.statistic).all()
    assert math.isnan(check.global_p)


# ---------------------------------------------------------------- federated == pooled


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", NAMES)
def test_federated_efron_equals_the_pooled_fit_of_lifelines(name: str, split: Split) -> None:
    fit, sites = federated(name, split)
    pooled, inference = lifelines_fit(name), cox_inference(fit)
    assert len(sites) == 4
    assert relative(fit.coefficients, pooled.params_.to_numpy()) <= 1e-9
    assert relative(inference.se, pooled.standard_errors_.to_numpy()) <= 1e-9
    summary = pooled.summary
    assert inference.z == pytest.approx(summary["z"].to_numpy(), rel=1e-8)
    assert inference.p == pytest.approx(summary["p"].to_numpy(), rel=1e-6)
    assert inference.hazard_ratio == pytest.approx(summary["exp(coef)"].to_numpy(), rel=1e-9)
    assert inference.ci_low == pytest.approx(summary["exp(coef) lower 95%"].to_numpy(), rel=1e-9)
    assert inference.ci_high == pytest.approx(summary["exp(coef) upper 95%"].to_numpy(), rel=1e-9)
    assert fit.optimum.log_likelihood == pytest.approx(pooled.log_likelihood_, rel=1e-12)
    assert fit.optimum.steps <= 9


def test_one_of_the_splits_has_a_site_without_events() -> None:
    _, sites = federated("rossi", one_without_events)
    assert [bool(site.event.any()) for site in sites] == [True, True, True, False]
    assert len(sites[3].event) > 0


@pytest.mark.parametrize("name", NAMES)
def test_federated_breslow_equals_the_pooled_fit_of_scikit_survival(name: str) -> None:
    fit, _ = federated(name, by_size, CoxSettings("breslow"))
    pooled = data_set(name).patients()
    outcome = np.array(
        list(zip(pooled.event, pooled.follow_up_days, strict=True)), dtype=[("event", "?"), ("time", "f8")]
    )
    standardised = (pooled.covariates - fit.scaling.mean) / fit.scaling.sd
    reference = CoxPHSurvivalAnalysis(ties="breslow", tol=1e-14).fit(standardised, outcome)
    assert relative(fit.coefficients, reference.coef_ / fit.scaling.sd) <= 1e-9


@pytest.mark.parametrize("name", ["rossi", "whas500", "gbsg2"])
def test_strata_by_site_equal_strata_of_lifelines(name: str) -> None:
    data = data_set(name)
    site = one_without_events(data.frame["E"].to_numpy() == 1, np.random.default_rng(7))
    fit = fit_linear_cox(data.sites(site), data.names, CoxSettings(baseline="site"))
    frame = data.frame.assign(site=site)
    pooled = CoxPHFitter().fit(frame, "T", "E", strata=["site"], fit_options=TIGHT)
    assert relative(fit.coefficients, pooled.params_[data.names].to_numpy()) <= 1e-9
    assert relative(cox_inference(fit).se, pooled.standard_errors_[data.names].to_numpy()) <= 1e-9
    test = proportional_hazard_test(pooled, frame, time_transform="km")
    assert proportional_hazards(fit).statistic == pytest.approx(test.test_statistic.to_numpy(), rel=1e-7)
    times = pooled.baseline_cumulative_hazard_.index.to_numpy()
    for number, baseline in enumerate(baselines(fit)):
        expected = pooled.baseline_cumulative_hazard_[number].to_numpy()
        assert baseline.at(times) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_proportional_hazards_check_and_baseline_equal_those_of_lifelines(name: str) -> None:
    fit, _ = federated(name, at_random)
    pooled = lifelines_fit(name)
    test = proportional_hazard_test(pooled, data_set(name).frame, time_transform="km")
    check = proportional_hazards(fit)
    assert check.statistic == pytest.approx(test.test_statistic.to_numpy(), rel=1e-6)
    assert check.p == pytest.approx(test.p_value, rel=1e-6, abs=1e-300)
    assert 0 <= check.global_p <= 1
    hazard = pooled.baseline_cumulative_hazard_.iloc[:, 0]
    assert baselines(fit)[0].at(hazard.index.to_numpy()) == pytest.approx(hazard.to_numpy(), rel=1e-8)


def untied(name: str) -> Data:
    """The data set with tied times drawn apart: lifelines' score residuals depend on the order of tied rows."""
    frame = data_set(name).frame
    apart = np.random.default_rng(3).permutation(len(frame)) * (0.5 / len(frame))
    return Data(frame.assign(T=frame["T"] + apart))


@pytest.mark.parametrize("cluster", ["patient", "site"])
@pytest.mark.parametrize("name", ["rossi", "whas500"])
def test_robust_standard_errors_equal_those_of_lifelines_without_ties(name: str, cluster: str) -> None:
    data = untied(name)
    site = np.random.default_rng(5).integers(0, 12, len(data.frame))
    sites = data.sites(site)
    fit = fit_linear_cox(sites, data.names, EVERYBODY)
    robust = cox_inference(fit, site_residuals(fit, sites), cluster)  # type: ignore[arg-type]
    how = {"robust": True} if cluster == "patient" else {"cluster_col": "site"}
    frame = data.frame if cluster == "patient" else data.frame.assign(site=site)
    pooled = CoxPHFitter().fit(frame, "T", "E", fit_options=TIGHT, **how)
    assert relative(robust.se, pooled.standard_errors_[data.names].to_numpy()) <= 1e-8
    assert robust.p == pytest.approx(pooled.summary["p"][data.names].to_numpy(), rel=1e-6)


def test_robust_errors_clustered_by_the_only_site_are_unknown_not_zero() -> None:
    patients = data_set("rossi").patients()
    fit = fit_linear_cox([patients], data_set("rossi").names, EVERYBODY)
    clustered = cox_inference(fit, site_residuals(fit, [patients]), "site")
    assert np.isnan(clustered.se).all()
    assert np.isnan(clustered.p).all()
    assert (cox_inference(fit, site_residuals(fit, [patients])).se > 0).all()


def test_robust_standard_errors_of_strata_equal_those_of_lifelines() -> None:
    data = untied("rossi")
    site = np.random.default_rng(5).integers(0, 3, len(data.frame))
    sites = data.sites(site)
    fit = fit_linear_cox(sites, data.names, CoxSettings(baseline="site"))
    robust = cox_inference(fit, site_residuals(fit, sites))
    frame = data.frame.assign(site=site)
    pooled = CoxPHFitter().fit(frame, "T", "E", strata=["site"], robust=True, fit_options=TIGHT)
    assert relative(robust.se, pooled.standard_errors_[data.names].to_numpy()) <= 1e-8


def test_a_score_residual_with_ties_is_how_far_weight_on_that_patient_moves_lifelines() -> None:
    # The inverse information times a patient's score residual is d beta / d weight.
    data = data_set("rossi")
    fit = fit_linear_cox([data.patients()], data.names, EVERYBODY)
    (stratum,), inverse = fit.optimum.strata, np.linalg.inv(fit.optimum.information)
    for row in (*np.flatnonzero(data.frame["E"])[[0, 60]], 431):  # two events, a censored patient
        alone = site_design(data.patients(np.array([row])), fit.scaling, fit.edges_days)
        squared = residual_sums(alone, fit.optimum.beta, score_curves(stratum)).by_patient
        found = np.sqrt(np.diag(inverse @ squared @ inverse)) / fit.scaling.sd
        low, high = (
            weighted_fit(data, 1 + weight * (np.arange(len(data.frame)) == row)) for weight in (-1e-4, 1e-4)
        )
        assert found == pytest.approx(np.abs(high - low) / 2e-4, rel=1e-5, abs=1e-9)


def weighted_fit(data: Data, weight: Floats) -> Floats:
    frame = data.frame.assign(w=weight)
    fitted = CoxPHFitter().fit(frame, "T", "E", weights_col="w", robust=True, fit_options=TIGHT)
    return fitted.params_.to_numpy()


@pytest.mark.parametrize("penalty", [0.01, 0.5])
def test_the_penalty_is_scaled_as_that_of_lifelines(penalty: float) -> None:
    fit, _ = federated("gbsg2", at_random, CoxSettings(penalty=penalty))
    pooled = CoxPHFitter(penalizer=penalty).fit(data_set("gbsg2").frame, "T", "E", fit_options=TIGHT)
    assert relative(fit.coefficients, pooled.params_.to_numpy()) <= 1e-9
    assert relative(cox_inference(fit).se, pooled.standard_errors_.to_numpy()) <= 1e-9


def test_left_truncation_equals_entry_col_of_lifelines() -> None:
    data = data_set("rossi")
    entry = np.minimum(np.random.default_rng(1).integers(0, 25, len(data.frame)), data.frame["T"] - 1.0)
    site = np.random.default_rng(2).integers(0, 3, len(data.frame))
    sites = [
        CoxPatients(part.follow_up_days, part.event, part.covariates, entry[site == number].to_numpy())
        for number, part in enumerate(data.sites(site))
    ]
    fit = fit_linear_cox(sites, data.names, EVERYBODY)
    frame = data.frame.assign(entry=entry)
    pooled = CoxPHFitter().fit(frame, "T", "E", entry_col="entry", fit_options=TIGHT)
    assert relative(fit.coefficients, pooled.params_[data.names].to_numpy()) <= 1e-9
    assert relative(cox_inference(fit).se, pooled.standard_errors_[data.names].to_numpy()) <= 1e-9
    assert cox_inference(fit, site_residuals(fit, sites)).se == pytest.approx(cox_inference(fit).se, rel=0.3)


# ---------------------------------------------------------------- Fed-TCGA-BRCA, six real centres


def brca(data_root: Path) -> tuple[Data, NDArray[np.int64], Data]:
    """Training patients, their centre, test patients; the official split."""
    folder = data_root / "survival" / "fed_tcga_brca"
    if not folder.is_dir():
        pytest.skip("no Fed-TCGA-BRCA in the folder of real data")
    split = pd.read_csv(folder / "train_test_split.csv")
    frame = pd.read_csv(folder / "brca.csv").merge(split, on="pid", validate="one_to_one")
    training = frame["fold"] == "train"
    centre = frame["fold2"].str.removeprefix("train_").where(training, "0").astype(int).to_numpy()[training]
    frame = frame.drop(columns=["pid", "fold", "fold2"])
    return Data(frame[training]), centre, Data(frame[~training])


@pytest.mark.parametrize(
    ("penalty", "test_c"), [(1e-4, 0.8388), (1e-3, 0.8396), (0.05, 0.8403), (0.1, 0.8385)]
)
def test_fed_tcga_brca_equals_lifelines_and_reaches_the_pooled_test_c(
    data_root: Path, penalty: float, test_c: float
) -> None:
    training, centre, test = brca(data_root)
    sites = training.sites(centre)
    fit = fit_linear_cox(sites, training.names, CoxSettings(penalty=penalty))
    pooled = CoxPHFitter(penalizer=penalty).fit(training.frame, "T", "E", fit_options=TIGHT)
    assert [len(site.event) for site in sites] == [248, 156, 164, 129, 129, 40]
    assert relative(fit.coefficients, pooled.params_[training.names].to_numpy()) <= 1e-6
    assert relative(cox_inference(fit).se, pooled.standard_errors_[training.names].to_numpy()) <= 1e-6
    later = test.patients()
    c_index = concordance(later.follow_up_days, later.event, fit.log_hazard(later.covariates)).c_index
    assert c_index == pytest.approx(test_c, abs=5e-5)
    assert 0.838 <= c_index <= 0.842
    assert (fit.optimum.steps, fit.optimum.rounds) == (6, 7)


def test_fed_tcga_brca_without_penalty_names_its_collinear_columns(data_root: Path) -> None:
    training, centre, _ = brca(data_root)
    with pytest.raises(ModelError, match=r"FECG-333 .* 7 of 39 directions .* ajcc_pathologic_stage_Stage IA"):
        fit_linear_cox(training.sites(centre), training.names, EVERYBODY)


# ---------------------------------------------------------------- grids


def test_a_public_grid_of_30_days_has_a_finite_gap_to_exact_and_finer_grids_a_smaller_one() -> None:
    data = data_set("whas500")
    exact, sites = federated("whas500", at_random)
    gaps = [
        gap_to_exact(fit_linear_cox(sites, data.names, EVERYBODY, public_grid(days, 2400)), exact)
        for days in (120, 30, 1)
    ]
    assert gaps[0] > gaps[1] > gaps[2]
    assert 0.1 < gaps[1] < 1  # many of these patients die within days
    assert gaps[2] < 1e-9  # whole days: a bin a day is exact


def test_bins_without_events_change_nothing() -> None:
    data = data_set("rossi")
    exact, sites = federated("rossi", at_random)
    finer = np.union1d(exact_grid(sites), np.arange(0, 52, 0.5))
    assert (
        relative(fit_linear_cox(sites, data.names, EVERYBODY, finer).coefficients, exact.coefficients) < 1e-12
    )


# ---------------------------------------------------------------- numbers far out


def by_definition(x: Floats, event: NDArray[np.bool_], beta: Floats) -> tuple[float, Floats]:
    """Breslow likelihood and gradient of patients in the order of their times, each risk set shifted by its maximum."""
    eta, value, gradient = x @ beta, 0.0, np.zeros(beta.size)
    for row in np.flatnonzero(event):
        shift = eta[row:].max()
        share = np.exp(eta[row:] - shift)
        value += eta[row] - shift - np.log(share.sum())
        gradient += x[row] - share @ x[row:] / share.sum()
    return value, gradient


def far_out(seed: int) -> tuple[CoxPatients, Floats]:
    """300 patients whose log hazards reach from -50 to 50 under the true beta."""
    rng = np.random.default_rng(seed)
    x, beta = rng.uniform(-1, 1, (300, 2)), np.array([40.0, -10.0])
    x[:4] = [[1, -1], [-1, 1], [1, -1], [-1, 1]]
    time = np.argsort(np.argsort(rng.exponential(size=300) * np.exp(-x @ beta))) + 1.0
    order = np.argsort(time)
    return CoxPatients(time[order], rng.random(300) < 0.7, x[order]), beta


def test_sums_are_right_where_log_hazards_reach_50() -> None:
    patients, beta = far_out(1)
    assert np.abs(patients.covariates @ beta).max() == 50
    design = site_design(patients, Scaling(np.zeros(2), np.ones(2)), exact_grid([patients]))
    found = partial_likelihood(Stratum(event_sums(design), risk_sums(design, beta, "breslow")), beta)
    value, gradient = by_definition(patients.covariates, patients.event, beta)
    assert found.value == pytest.approx(value, rel=1e-12)
    assert found.gradient == pytest.approx(gradient, rel=1e-9, abs=1e-9)


def test_newton_steps_reach_the_optimum_where_log_hazards_reach_50() -> None:
    patients, beta = far_out(1)
    fit = fit_linear_cox([patients], ["a", "b"], EVERYBODY)
    _, gradient = by_definition(patients.covariates, patients.event, fit.coefficients)
    inverse = np.linalg.inv(fit.optimum.information) * np.outer(1 / fit.scaling.sd, 1 / fit.scaling.sd)
    assert np.abs(inverse @ gradient / fit.coefficients).max() <= 1e-9
    assert np.abs(fit.coefficients / beta - 1).max() < 0.3
    assert fit.optimum.rounds >= fit.optimum.steps + 1


def test_covariates_far_from_zero_lose_no_digits() -> None:
    data = data_set("rossi")
    shifted = Data(data.frame.assign(age=data.frame["age"] + 1e6, prio=data.frame["prio"] * 1e-6))
    found = fit_linear_cox([shifted.patients()], data.names, EVERYBODY).coefficients
    expected = fit_linear_cox([data.patients()], data.names, EVERYBODY).coefficients
    expected = expected * np.where(np.array(data.names) == "prio", 1e6, 1)
    assert relative(found, expected) <= 1e-8


# ---------------------------------------------------------------- invariances


@st.composite
def cohorts(draw: st.DrawFn) -> tuple[CoxPatients, NDArray[np.int64]]:
    """20 to 60 patients with many ties, in up to four sites."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    patients = draw(st.integers(20, 60))
    x = np.column_stack([rng.normal(size=patients), rng.integers(0, 2, patients), rng.normal(size=patients)])
    x[:2, 1] = 0, 1
    event = rng.random(patients) < draw(st.floats(0.1, 0.9))
    event[0] = True
    time = rng.integers(1, draw(st.integers(3, 40)), patients).astype(np.float64)
    return CoxPatients(time, event, x), rng.integers(0, draw(st.integers(1, 4)), patients)


def split(patients: CoxPatients, site: NDArray[np.int64], order: Floats | None = None) -> list[CoxPatients]:
    rows = np.arange(site.size) if order is None else order
    return [
        CoxPatients(patients.follow_up_days[own], patients.event[own], patients.covariates[own])
        for own in (rows[site[rows] == number] for number in range(site.max() + 1))
    ]


RIDGE = CoxSettings(penalty=0.01)  # random cohorts of 20 may be separable
ABC = ["a", "b", "c"]


@settings(max_examples=60, deadline=None)
@given(cohorts(), st.randoms(use_true_random=False), st.sampled_from(["shared", "site"]))
def test_order_of_patients_and_of_sites_leaves_beta_the_same(cohort, random, baseline) -> None:  # type: ignore[no-untyped-def]
    patients, site = cohort
    options = CoxSettings(baseline=baseline, penalty=0.01)
    expected = fit_linear_cox(split(patients, site), ABC, options).coefficients
    order = np.array(random.sample(range(site.size), site.size))
    sites = split(patients, site, order)
    random.shuffle(sites)
    assert fit_linear_cox(sites, ABC, options).coefficients == pytest.approx(expected, rel=1e-8, abs=1e-10)


@settings(max_examples=60, deadline=None)
@given(cohorts(), st.sampled_from(["efron", "breslow"]))
def test_splitting_a_site_in_two_or_adding_an_empty_one_changes_nothing(cohort, ties) -> None:  # type: ignore[no-untyped-def]
    patients, site = cohort
    options = CoxSettings(ties, penalty=0.01)
    pooled = fit_linear_cox([patients], ABC, options)
    finer = [*split(patients, 2 * site + np.arange(site.size) % 2), split(patients, site + 1)[0]]
    fit = fit_linear_cox(finer, ABC, options)
    assert len(finer[-1].event) == 0
    assert fit.coefficients == pytest.approx(pooled.coefficients, rel=1e-8, abs=1e-10)
    robust, whole = (cox_inference(a, site_residuals(a, b)) for a, b in ((fit, finer), (pooled, [patients])))
    assert np.nan_to_num(robust.se) == pytest.approx(np.nan_to_num(whole.se), rel=1e-7, abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(cohorts(), st.sampled_from([1 / 365.25, 24.0]))
def test_units_of_time_and_of_covariates_do_not_matter(cohort, unit) -> None:  # type: ignore[no-untyped-def]
    patients, _ = cohort
    first = fit_linear_cox([patients], ABC, RIDGE)
    scaled = CoxPatients(
        patients.follow_up_days * unit, patients.event, patients.covariates * np.array([1e3, 1, 1e-3]) + 7
    )
    second = fit_linear_cox([scaled], ABC, RIDGE)
    assert second.coefficients * np.array([1e3, 1, 1e-3]) == pytest.approx(
        first.coefficients, rel=1e-7, abs=1e-9
    )
    assert cox_inference(second).p == pytest.approx(cox_inference(first).p, rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(cohorts())
def test_a_patient_who_leaves_before_the_first_event_only_moves_the_scale(cohort) -> None:  # type: ignore[no-untyped-def]
    patients, _ = cohort
    mean = patients.covariates.mean(axis=0)
    more = CoxPatients(
        np.append(patients.follow_up_days, 0.25),
        np.append(patients.event, False),
        np.vstack([patients.covariates, mean]),
    )
    scaling = Scaling(mean, np.ones(3))
    beta = np.array([0.3, -0.2, 0.1])
    both = [
        partial_likelihood(Stratum(event_sums(design), risk_sums(design, beta, "efron")), beta)
        for design in (site_design(who, scaling, exact_grid([patients])) for who in (patients, more))
    ]
    assert both[1].value == pytest.approx(both[0].value, rel=1e-12)
    assert both[1].gradient == pytest.approx(both[0].gradient, rel=1e-9, abs=1e-12)


# ---------------------------------------------------------------- refusals


def four(x: list[list[float]], event: tuple[int, ...] = (1, 1, 1, 0)) -> list[CoxPatients]:
    return [CoxPatients(np.array([1.0, 2, 3, 4]), np.array(event, dtype=bool), np.array(x, dtype=np.float64))]


def test_no_event_is_refused() -> None:
    sites = four([[1.0], [2], [3], [5]], (0, 0, 0, 0)) * 2
    with pytest.raises(ModelError, match=r"FECG-331 Cox model: found no event in 8 patients of 2 sites"):
        fit_linear_cox(sites, ["age"], EVERYBODY)


def test_a_constant_covariate_is_named() -> None:
    with pytest.raises(ModelError, match=r"FECG-332 .* 1 of 2 with one value in all 4 patients: sex;"):
        fit_linear_cox(four([[1, 0.1], [3, 0.1], [2, 0.1], [5, 0.1]]), ["age", "sex"], EVERYBODY)


def test_one_patient_has_only_constant_covariates() -> None:
    alone = CoxPatients(np.array([3.0]), np.array([True]), np.array([[1.0]]))
    with pytest.raises(ModelError, match=r"FECG-332 .* 1 of 1 with one value in all 1 patients"):
        fit_linear_cox([alone], ["age"], EVERYBODY)


def test_collinear_covariates_are_named_and_a_penalty_settles_them() -> None:
    data = data_set("rossi")
    frame = data.frame.assign(both=2 * data.frame["age"] - data.frame["prio"])
    more = Data(frame)
    with pytest.raises(ModelError, match=r"FECG-333 .* 1 of 8 directions .* over age, prio, both;"):
        fit_linear_cox([more.patients()], more.names, EVERYBODY)
    assert np.isfinite(fit_linear_cox([more.patients()], more.names, RIDGE).coefficients).all()


def test_a_covariate_that_only_differs_between_sites_has_no_information_with_strata_by_site() -> None:
    data = data_set("rossi")
    site = np.random.default_rng(0).integers(0, 3, len(data.frame))
    more = Data(data.frame.assign(beds=site * 100.0))
    with pytest.raises(ModelError, match=r"FECG-333 .* over beds; .* must differ within sites"):
        fit_linear_cox(more.sites(site), more.names, CoxSettings(baseline="site"))


def test_perfect_separation_is_named() -> None:
    with pytest.raises(ModelError, match=r"FECG-334 .* no finite optimum over age;"):
        fit_linear_cox(four([[9], [7], [5], [1]]), ["age"], EVERYBODY)


def test_separation_by_a_hair_is_named_too() -> None:
    # Patients 2 and 3 differ by little, so that the likelihood rises for hundreds of standard deviations.
    almost = [
        CoxPatients(
            np.array([5.0, 7, 8, 9]),
            np.array([1, 1, 0, 0], bool),
            np.array([[1], [-0.716], [-0.728], [-1.1]]),
        )
    ]
    with pytest.raises(ModelError, match=r"FECG-334 .* no finite optimum over age;"):
        fit_linear_cox(almost, ["age"], EVERYBODY)


@given(st.integers(0, 100_000))
@settings(max_examples=150, deadline=None)
def test_any_tiny_cohort_is_fitted_or_refused_by_a_code(seed: int) -> None:
    rng = np.random.default_rng(seed)
    patients, columns = int(rng.integers(1, 25)), int(rng.integers(1, 4))
    x = np.where(rng.random((patients, columns)) < 0.5, rng.integers(0, 2, (patients, columns)), 0.5)
    x[:, 0] = rng.normal(size=patients)
    cohort = CoxPatients(rng.integers(0, 10, patients).astype(float), rng.random(patients) < 0.6, x)
    try:
        fit = fit_linear_cox([cohort], ABC[:columns], EVERYBODY)
    except ModelError as error:
        refusal = error.code
    else:
        refusal = ""
        assert np.isfinite(fit.coefficients).all()
        assert (cox_inference(fit).se > 0).all()
        assert fit.optimum.log_likelihood >= fit.optimum.log_likelihood_null
    assert refusal in {"", "FECG-331", "FECG-332", "FECG-333", "FECG-334", "FECG-335"}


def test_a_category_without_events_is_named_and_nothing_else() -> None:
    data = data_set("rossi")
    rare = np.zeros(len(data.frame))
    rare[np.flatnonzero(data.frame["E"] == 0)[:9]] = 1
    more = Data(data.frame.assign(rare=rare))
    with pytest.raises(ModelError, match=r"FECG-334 .* no finite optimum over rare;"):
        fit_linear_cox([more.patients()], more.names, EVERYBODY)


def answers(site: CoxPatients) -> tuple[EventSums, Callable[[Floats], RiskSums]]:
    design = site_design(site, Scaling(np.zeros(1), np.ones(1)), exact_grid([site]))
    return event_sums(design), lambda beta: risk_sums(design, beta, "efron")


def test_a_site_whose_sums_never_answer_to_beta_ends_in_an_error() -> None:
    events, ask = answers(four([[3], [5], [2], [1]])[0])
    with pytest.raises(ModelError, match=r"FECG-335 .* still moves after 60 Newton steps"):
        maximise(lambda _: [ask(np.zeros(1))], [events], ["age"], EVERYBODY)


def test_sums_that_turn_bad_after_the_first_round_end_in_an_error() -> None:
    events, ask = answers(four([[1], [3], [2], [5]])[0])
    good = ask(np.zeros(1))
    with pytest.raises(
        ModelError, match=r"FECG-335 .* no step that raises the likelihood, after 40 halvings"
    ):
        maximise(
            lambda beta: [good if not beta.any() else RiskSums(good.leaving * np.nan, good.tied)],
            [events],
            ["age"],
            EVERYBODY,
        )


def test_sums_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ModelError, match=r"FECG-336 .* 1 of 1 strata with risk sums that are not finite"):
        fit_linear_cox(four([[1], [math.nan], [2], [5]]), ["age"], EVERYBODY)


def test_events_without_anybody_at_risk_are_refused() -> None:
    events, ask = answers(four([[1], [3], [2], [5]])[0])
    empty = RiskSums(np.zeros_like(ask(np.zeros(1)).leaving), None)
    with pytest.raises(ModelError, match=r"FECG-336 .* bins with events and nobody at risk"):
        maximise(lambda _: [empty], [events], ["age"], CoxSettings("breslow"))
