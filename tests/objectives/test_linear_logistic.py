"""Logistic regression from sums: scikit-learn's optimum, whatever record lies at which site."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from fedecg.errors import ModelError
from fedecg.objectives.linear_logistic import (
    LogisticSums,
    design,
    fit_logistic,
    log_loss,
    logistic_sums,
    pooled_scaling,
    pooled_span,
)


def table(records: int = 120, features: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features on different scales and labels that depend on two of them."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((records, features)) * np.logspace(-3, 3, features) + np.arange(features)
    score = 1.5 * np.tanh(x[:, 0] * 1e3) - np.tanh(x[:, -1] / 1e3) + 0.5
    return x, rng.random(records) < 1 / (1 + np.exp(-score))


def fitted(parts: list[tuple[np.ndarray, np.ndarray]], strength: float) -> np.ndarray:
    scaling = pooled_scaling([x for x, _ in parts])
    tables = [(design(x, scaling), label) for x, label in parts]

    def sums_at(beta: np.ndarray) -> LogisticSums:
        first, *others = (logistic_sums(z, label, beta) for z, label in tables)
        return sum(others, start=first)

    return fit_logistic(sums_at, np.zeros(tables[0][0].shape[1]), strength).beta


@pytest.mark.parametrize("strength", [0.1, 1.0, 100.0, 1e4])
def test_the_optimum_is_that_of_scikit_learn(strength: float) -> None:
    x, label = table()
    reference = LogisticRegression(C=1 / strength, tol=1e-12, max_iter=10_000, solver="newton-cholesky")
    reference.fit(StandardScaler().fit_transform(x), label)
    expected = np.concatenate([reference.intercept_, reference.coef_[0]])
    np.testing.assert_allclose(fitted([(x, label)], strength), expected, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 120), min_size=1, max_size=5), strength=st.sampled_from([0.1, 10.0, 1e3]))
def test_sites_of_any_size_fit_what_the_pooled_table_fits(cuts: list[int], strength: float) -> None:
    x, label = table()
    edges = [0, *sorted(cuts), 120]  # empty sites among them
    parts = [(x[low:high], label[low:high]) for low, high in pairwise(edges)]
    np.testing.assert_allclose(fitted(parts, strength), fitted([(x, label)], strength), atol=1e-6)


def test_sites_with_one_label_each_fit_the_pooled_table_as_well() -> None:
    x, label = table()
    parts = [(x[label], label[label]), (x[~label], label[~label])]
    np.testing.assert_allclose(fitted(parts, 1.0), fitted([(x, label)], 1.0), atol=1e-6)


def test_labels_that_a_line_parts_have_a_finite_optimum() -> None:
    x, _ = table()
    beta = fitted([(x, x[:, 2] > 2)], 0.1)
    assert np.isfinite(beta).all()
    assert np.abs(beta).argmax() == 3  # the intercept comes first


def test_a_feature_that_is_the_same_everywhere_keeps_its_unit() -> None:
    x, label = table()
    x[:, 4] = 7.1
    mean, sd = pooled_scaling([x[:50], x[50:]])
    assert sd[4] == 1.0
    assert mean[4] == pytest.approx(7.1)
    np.testing.assert_allclose(sd[[0, 7]], x[:, [0, 7]].std(axis=0), rtol=1e-9)
    assert fitted([(x, label)], 1.0)[5] == pytest.approx(0, abs=1e-6)


def test_gradient_and_information_are_the_derivatives_of_the_likelihood() -> None:
    x, label = table(features=4)
    z, beta = design(x, pooled_scaling([x])), np.array([0.3, -0.2, 0.5, 1.0, -0.4])
    sums = logistic_sums(z, label, beta).penalised(beta, 2.0)
    for at in range(5):
        step = np.zeros(5)
        step[at] = 1e-5
        ahead, behind = (
            logistic_sums(z, label, there).penalised(there, 2.0) for there in (beta + step, beta - step)
        )
        assert sums.gradient[at] == pytest.approx((ahead.value - behind.value) / 2e-5, rel=1e-5)
        np.testing.assert_allclose(
            sums.information[at], -(ahead.gradient - behind.gradient) / 2e-5, rtol=1e-5, atol=1e-5
        )


def test_the_loss_of_a_hand_made_record() -> None:
    z = np.array([[1.0, 2.0]])
    assert log_loss(z, np.array([True]), np.array([0.0, 0.5])) == pytest.approx(np.log(1 + np.exp(-1)))
    assert log_loss(z, np.array([False]), np.array([0.0, 0.5])) == pytest.approx(np.log(1 + np.exp(1)))


def test_sums_that_no_records_have_are_refused() -> None:
    nothing = LogisticSums(5, float("nan"), np.zeros(2), np.eye(2))
    with pytest.raises(ModelError, match=r"FECG-376 linear probe: found no optimum .* fedecg verify MODEL"):
        fit_logistic(lambda _: nothing, np.zeros(2), 1.0)


def test_a_fit_in_the_span_of_the_records_is_the_fit_of_all_features() -> None:
    x, label = table(records=40, features=60)
    scaling = pooled_scaling([x])
    span = pooled_span([x[:11], x[11:]], scaling)
    assert span.shape == (60, 39)  # centred: one direction fewer than records
    z = design(x, scaling)
    short = np.column_stack([z[:, :1], z[:, 1:] @ span])
    small = fit_logistic(lambda beta: logistic_sums(short, label, beta), np.zeros(40), 2.0).beta
    np.testing.assert_allclose([small[0], *(span @ small[1:])], fitted([(x, label)], 2.0), atol=1e-7)
