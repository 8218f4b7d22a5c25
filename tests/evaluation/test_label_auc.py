"""AUC of a label from counts: scikit-learn's for one site, between its bounds for several, in every replicate."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from fedecg.errors import FederationError
from fedecg.evaluation.label_auc import label_auc, label_auc_sums, patient_weights

CUTS = np.linspace(-1, 1, 9)


def records(n: int, seed: int, levels: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores with ties."""
    rng = np.random.default_rng(seed)
    label = rng.random(n) < 0.4
    return label, np.round(0.4 * label + rng.uniform(-1, 1, n), 1) if levels else rng.random(n)


def test_by_hand() -> None:
    label, score = np.array([True, True, False, False]), np.array([0.9, 0.2, 0.2, 0.1])
    found = label_auc(label_auc_sums(label, score, np.ones((1, 4)), CUTS))
    assert found.auc[0] == 3.5 / 4
    assert (found.positives, found.negatives) == (2, 2)


def test_one_site_is_exact_with_and_without_weights() -> None:
    label, score = records(90, 1)
    weight = patient_weights(np.arange(90) // 2, 30, np.random.default_rng(2))
    found = label_auc(label_auc_sums(label, score, weight, CUTS))
    expected = [roc_auc_score(label, score, sample_weight=row) for row in weight]
    np.testing.assert_allclose(found.auc, expected, atol=1e-12)
    np.testing.assert_array_equal(found.lower, found.upper)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), sites=st.integers(2, 5), shift=st.floats(-0.5, 0.5))
def test_bounds_hold_for_every_replicate_and_finer_cuts_narrow_them(
    seed: int, sites: int, shift: float
) -> None:
    site = np.random.default_rng(seed).integers(sites, size=80)
    label, score = records(80, seed)
    score = score + shift * site
    weights = [
        patient_weights(np.arange((site == at).sum()), 10, np.random.default_rng([seed, at]))
        for at in range(sites)
    ]
    order = np.argsort(site, kind="stable")
    pooled = label_auc(label_auc_sums(label[order], score[order], np.concatenate(weights, axis=1), CUTS)).auc

    def federated(cuts: np.ndarray) -> object:
        parts = [
            label_auc_sums(label[site == at], score[site == at], weights[at], cuts) for at in range(sites)
        ]
        return label_auc(sum(parts[1:], start=parts[0]))

    coarse, fine = federated(CUTS), federated(np.linspace(-1, 1, 33))
    known = np.isfinite(pooled)
    for found in (coarse, fine):
        assert (found.lower[known] <= pooled[known] + 1e-12).all()
        assert (found.upper[known] >= pooled[known] - 1e-12).all()
    assert (fine.upper - fine.lower <= coarse.upper - coarse.lower + 1e-12)[known].all()


def test_no_positive_record_gives_no_auc() -> None:
    found = label_auc(label_auc_sums(np.zeros(5, dtype=bool), np.arange(5.0), np.ones((1, 5)), CUTS))
    assert np.isnan(found.auc[0])


def test_all_records_of_a_patient_are_drawn_together() -> None:
    weight = patient_weights(np.array([7, 3, 7, 3, 9]), 200, np.random.default_rng(0))
    assert (weight[0] == 1).all()
    np.testing.assert_array_equal(weight[:, 0], weight[:, 2])
    np.testing.assert_array_equal(weight[:, 1], weight[:, 3])
    assert (weight[1:, [0, 1, 4]].sum(axis=1) == 3).all()
    assert weight[1:].std() > 0.5


def test_a_site_without_records_adds_nothing() -> None:
    label, score = records(40, 3)
    whole = label_auc_sums(label, score, patient_weights(np.arange(40), 5, np.random.default_rng(1)), CUTS)
    nobody = label_auc_sums(
        label[:0], score[:0], patient_weights(np.arange(0), 5, np.random.default_rng(1)), CUTS
    )
    np.testing.assert_array_equal(label_auc(whole + nobody).auc, label_auc(whole).auc)


def test_counts_of_other_cuts_or_replicates_do_not_add_up() -> None:
    label, score = records(40, 4)
    whole = label_auc_sums(label, score, np.ones((1, 40)), CUTS)
    for other in (
        label_auc_sums(label, score, np.ones((2, 40)), CUTS),
        label_auc_sums(label, score, np.ones((1, 40)), CUTS + 0.1),
    ):
        with pytest.raises(
            FederationError, match="FECG-377 counts of a label's AUC: found counts of different"
        ):
            whole + other
