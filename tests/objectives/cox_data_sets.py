"""Published data sets in sites, and their pooled fits: shared by the tests of the linear Cox model."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
import sksurv.datasets
from lifelines import CoxPHFitter
from lifelines.datasets import load_rossi
from numpy.typing import NDArray

from fedecg.objectives.linear_cox import CoxFit, CoxSettings, fit_linear_cox
from fedecg.objectives.linear_cox_sums import (
    CoxPatients,
)

Floats = NDArray[np.float64]
TIGHT = {"precision": 1e-20, "r_precision": 0.0}  # lifelines stops at 1e-7 otherwise
NAMES = ("rossi", "whas500", "gbsg2", "flchain")
EVERYBODY = CoxSettings()
RIDGE = CoxSettings(penalty=0.01)  # random cohorts of 20 may be separable
ABC = ["a", "b", "c"]


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


def four(x: list[list[float]], event: tuple[int, ...] = (1, 1, 1, 0)) -> list[CoxPatients]:
    return [CoxPatients(np.array([1.0, 2, 3, 4]), np.array(event, dtype=bool), np.array(x, dtype=np.float64))]
