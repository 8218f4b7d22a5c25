"""FLamby's linear Cox model on Fed-TCGA-BRCA: federated algorithms reach what the pooled rows give."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedecg.config import FederationSettings, SurvivalSettings
from fedecg.evaluation import concordance
from fedecg.objectives.linear_cox import CoxSettings, fit_linear_cox
from fedecg.objectives.linear_cox_sums import CoxPatients
from fedecg_simulations.linear_federation import train_linear

Sites = dict[str, CoxPatients]


def stage(rounds: int, rate: float, local_steps: int = 10) -> SurvivalSettings:
    return SurvivalSettings(
        rounds=rounds, local_steps=local_steps, learning_rate=rate, optimizer="sgd", weight_decay=0.0
    )


def patients(frame: pd.DataFrame, names: list[str]) -> CoxPatients:
    outcome = frame["T"].to_numpy(float), frame["E"].to_numpy(bool)
    return CoxPatients(*outcome, frame[names].to_numpy(float))


@pytest.fixture(scope="module")
def brca(data_root: Path) -> tuple[Sites, CoxPatients, list[str]]:
    """Training patients by centre, test patients: FLamby's split."""
    folder = data_root / "survival" / "fed_tcga_brca"
    if not folder.is_dir():
        pytest.skip("no Fed-TCGA-BRCA in the folder of real data")
    split = pd.read_csv(folder / "train_test_split.csv")
    frame = pd.read_csv(folder / "brca.csv").merge(split, on="pid", validate="one_to_one")
    names = [name for name in frame if name not in ("pid", "E", "T", "fold", "fold2")]
    training = frame[frame["fold"] == "train"]
    sites = {str(site): patients(rows, names) for site, rows in training.groupby(training["fold2"].str[-1])}
    return sites, patients(frame[frame["fold"] == "test"], names), names


def c_index_on(test: CoxPatients, beta: np.ndarray) -> float:
    return concordance(test.follow_up_days, test.event, test.covariates @ beta).c_index


@pytest.mark.parametrize(
    "settings",
    [{}, {"algorithm": "fedprox", "proximal_mu": 0.01}, {"algorithm": "scaffold"}],
    ids=["fedavg", "fedprox", "scaffold"],
)
def test_it_is_within_a_hundredth_of_the_exact_pooled_model(
    brca: tuple[Sites, CoxPatients, list[str]], settings: dict[str, object]
) -> None:
    sites, test, names = brca
    pooled = fit_linear_cox(list(sites.values()), names, CoxSettings(penalty=1e-3))
    exact = concordance(test.follow_up_days, test.event, pooled.log_hazard(test.covariates)).c_index
    beta = train_linear(sites, stage(100, 0.1), FederationSettings(**settings))
    assert 0.838 <= exact <= 0.842
    assert abs(c_index_on(test, beta) - exact) <= 0.01


@pytest.mark.slow
def test_run_on_fedavg_drifts_away_from_the_pooled_model_and_scaffold_does_not(
    brca: tuple[Sites, CoxPatients, list[str]],
) -> None:
    """Ten local steps of a large rate: the fixed point of fedavg is another one, that of scaffold is the pooled."""
    sites, test, names = brca
    pooled = fit_linear_cox(list(sites.values()), names, CoxSettings(penalty=1e-4))
    risk = pooled.log_hazard(test.covariates)
    apart = {}
    for algorithm in ("fedavg", "scaffold"):
        beta = train_linear(sites, stage(300, 0.3), FederationSettings(algorithm=algorithm))
        apart[algorithm] = 1 - np.corrcoef(test.covariates @ beta, risk)[0, 1]
    assert apart["scaffold"] < 0.01
    assert apart["fedavg"] > 2 * apart["scaffold"]


def two_sites() -> Sites:
    """Two sites that differ in their covariates, made from a known hazard."""
    rng, sites = np.random.default_rng(11), {}
    for name, shift in (("a", -0.7), ("b", 0.7)):
        x = rng.normal(size=(150, 3)) + shift
        time = rng.exponential(np.exp(-x @ np.array([0.8, -0.5, 0.0])))
        censored = rng.exponential(1.5, 150)
        sites[name] = CoxPatients(np.minimum(time, censored) * 1000, time <= censored, x)
    return sites


def test_one_local_step_ends_at_the_exact_pooled_optimum() -> None:
    sites = two_sites()
    exact = fit_linear_cox(list(sites.values()), ["x", "y", "z"], CoxSettings("breslow")).coefficients
    beta = train_linear(sites, stage(400, 0.5, local_steps=1), FederationSettings())
    assert beta == pytest.approx(exact, abs=1e-4)


@pytest.mark.parametrize("algorithm", ["scaffold", "fedadam", "fedyogi"])
def test_every_algorithm_comes_near_the_pooled_optimum(algorithm: str) -> None:
    sites = two_sites()
    exact = fit_linear_cox(list(sites.values()), ["x", "y", "z"], CoxSettings("breslow")).coefficients
    settings = FederationSettings(algorithm=algorithm, server_rate=0.05)
    beta = train_linear(sites, stage(150, 0.1, local_steps=5), settings)
    assert beta == pytest.approx(exact, abs=0.05)


def test_scaffold_ends_nearer_to_the_pooled_optimum_than_fedavg() -> None:
    sites = two_sites()
    exact = fit_linear_cox(list(sites.values()), ["x", "y", "z"], CoxSettings("breslow")).coefficients
    errors = {
        algorithm: np.abs(
            train_linear(sites, stage(150, 0.5, local_steps=8), FederationSettings(algorithm=algorithm))
            - exact
        ).max()
        for algorithm in ("fedavg", "scaffold")
    }
    assert errors["scaffold"] < errors["fedavg"]
