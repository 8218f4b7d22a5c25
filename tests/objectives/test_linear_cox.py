"""The federated Cox model of a table: equal to lifelines' and scikit-survival's pooled fits, from sums alone."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cox_data_sets import (
    EVERYBODY,
    NAMES,
    SPLITS,
    TIGHT,
    Data,
    Split,
    at_random,
    by_size,
    data_set,
    federated,
    lifelines_fit,
    one_without_events,
    relative,
)
from lifelines import CoxPHFitter
from numpy.typing import NDArray
from sksurv.linear_model import CoxPHSurvivalAnalysis

from fedecg.errors import ModelError
from fedecg.evaluation import concordance
from fedecg.objectives.hazard import public_grid
from fedecg.objectives.linear_cox import CoxSettings, exact_grid, fit_linear_cox
from fedecg.objectives.linear_cox_inference import (
    baselines,
    cox_inference,
    gap_to_exact,
    site_residuals,
)
from fedecg.objectives.linear_cox_sums import (
    CoxPatients,
)

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
    times = pooled.baseline_cumulative_hazard_.index.to_numpy()
    for number, baseline in enumerate(baselines(fit)):
        expected = pooled.baseline_cumulative_hazard_[number].to_numpy()
        assert baseline.at(times) == pytest.approx(expected, rel=1e-9)


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
