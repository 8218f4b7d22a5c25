"""Probes from sums are those of the pooled records, and say what they cannot say."""

import numpy as np
import pytest
from planted import FINDINGS, planted_site, weights_of
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.preprocessing import StandardScaler

from fedecg.representation.families import classes_of, family_labels
from fedecg.representation.probes import STRENGTHS, fit_probe, linear_probe
from fedecg.representation.records import SiteEmbeddings, merged

UNEVEN = (("north", 300, 1), ("south", 40, 2), ("east", 5, 3), ("west", 150, 4))


@pytest.fixture(scope="module")
def sites() -> list[SiteEmbeddings]:
    return [planted_site(name, patients, seed, shift=0.3 * seed) for name, patients, seed in UNEVEN]


def part(site: SiteEmbeddings, name: str) -> tuple[np.ndarray, np.ndarray]:
    rows = site.part == name
    return site.embedding[rows], family_labels(site.codes, "superclass")[rows]


def test_weights_over_the_sites_are_those_of_the_pooled_records(sites: list[SiteEmbeddings]) -> None:
    whole = merged(sites)
    federated = fit_probe(
        [part(site, "train") for site in sites], [part(site, "validation") for site in sites]
    )
    pooled = fit_probe([part(whole, "train")], [part(whole, "validation")])
    assert federated.strength == pooled.strength
    np.testing.assert_allclose(federated.beta, pooled.beta, atol=1e-6)
    np.testing.assert_allclose(federated.mean, pooled.mean, atol=1e-12)


def test_the_penalty_is_that_of_the_least_validation_loss_and_the_fit_scikit_learns(
    sites: list[SiteEmbeddings],
) -> None:
    whole = merged(sites)
    (x, label), (held_out, truth) = part(whole, "train"), part(whole, "validation")
    scaler = StandardScaler().fit(x)
    fits, losses = {}, {}
    for strength in STRENGTHS:
        models = [
            LogisticRegression(C=1 / strength, tol=1e-10, solver="newton-cholesky").fit(
                scaler.transform(x), label[:, at]
            )
            for at in range(label.shape[1])
            if 0 < label[:, at].sum() < len(label)
        ]
        kept = [at for at in range(label.shape[1]) if 0 < label[:, at].sum() < len(label)]
        losses[strength] = sum(
            log_loss(
                truth[:, at], model.predict_proba(scaler.transform(held_out))[:, 1], labels=[False, True]
            )
            for at, model in zip(kept, models, strict=True)
        )
        fits[strength] = np.array([[*model.intercept_, *model.coef_[0]] for model in models])
    probe = fit_probe([(x, label)], [(held_out, truth)])
    assert probe.strength == min(losses, key=lambda strength: losses[strength])
    assert 0.1 < probe.strength < 1e4  # neither end: there was something to choose
    np.testing.assert_allclose(probe.beta[kept], fits[probe.strength], atol=1e-4)
    assert np.isnan(np.delete(probe.beta, kept, axis=0)).all()


def test_the_auc_is_scikit_learns_and_lies_within_the_bounds_of_the_counts(
    sites: list[SiteEmbeddings],
) -> None:
    found = linear_probe(sites, "superclass", 1.0, weights_of(sites)).macro
    whole = merged(sites)
    pooled = linear_probe([whole], "superclass", 1.0, weights_of([whole])).macro
    (x, label), validation = part(whole, "train"), part(whole, "validation")
    probe = fit_probe([(x, label)], [validation])
    test, truth = part(whole, "test")
    score = np.column_stack([np.ones(len(test)), (test - probe.mean) / probe.sd]) @ probe.beta.T
    expected = {
        name: roc_auc_score(truth[:, at], score[:, at])
        for at, name in enumerate(classes_of("superclass"))
        if truth[:, at].any()
    }
    assert {one.name: one.auc for one in found.shown} == pytest.approx(expected, abs=1e-9)
    assert found.pooled == pytest.approx(pooled.pooled, abs=1e-9)
    for one in found.shown:
        assert one.lower <= one.auc <= one.upper
    assert found.lower < found.federated < found.upper
    assert found.upper - found.lower < 0.02
    assert found.federated_low < found.pooled_low < found.pooled < found.pooled_high < found.federated_high
    assert pooled.lower == pooled.federated == pooled.upper == pooled.pooled


def test_embeddings_without_the_finding_are_no_better_than_chance() -> None:
    blind = [planted_site("north", 600, 9, strength=0.0)]
    macro = linear_probe(blind, "superclass", 1.0, weights_of(blind, 200)).macro
    assert macro.pooled_low < 0.5 < macro.pooled_high


def test_classes_with_few_test_positives_stand_apart(sites: list[SiteEmbeddings]) -> None:
    found = linear_probe(sites, "rhythm", 1.0, weights_of(sites)).macro
    assert {one.name for one in found.shown} == {"AFIB", "SR"}
    few = linear_probe(sites[1:2] + sites[3:], "rhythm", 1.0, weights_of(sites[1:2] + sites[3:])).macro
    assert few.shown == ()
    apart = {one.name: one.positives for one in few.apart if one.positives}
    assert apart["AFIB"] < 10 < apart["SR"]  # and so the negatives of SR are few
    assert np.isnan(few.pooled)


def test_fewer_than_fifty_labels_are_not_shown_as_a_figure(sites: list[SiteEmbeddings]) -> None:
    found = linear_probe(sites, "superclass", 0.1, weights_of(sites))
    assert 0 < found.labelled < 50
    assert found.macro is None
    assert found.reason == f"{found.labelled} labelled training records, fewer than 50"


def test_without_validation_records_there_is_no_penalty_and_no_figure(sites: list[SiteEmbeddings]) -> None:
    site = sites[0]
    alone = SiteEmbeddings(
        site.name,
        site.patient,
        np.where(site.part == "validation", "test", site.part),
        site.codes,
        site.embedding,
        site.projected,
    )
    found = linear_probe([alone], "superclass", 1.0, weights_of([alone]))
    assert (found.macro, found.reason) == (None, "no labelled validation records to choose the penalty by")


def test_larger_shares_of_the_labels_hold_the_smaller_ones_by_patient() -> None:
    site = planted_site("north", 2000, 5)
    labelled = {
        fraction: linear_probe([site], "superclass", fraction, weights_of([site], 2)).labelled
        for fraction in (0.01, 0.1, 1.0)
    }
    train = int((site.part == "train").sum())
    assert labelled[1.0] == train
    assert labelled[0.1] == pytest.approx(0.1 * train, rel=0.3)
    assert labelled[0.01] < 30
    more = linear_probe([site], "superclass", 0.1, weights_of([site], 2)).macro.pooled
    assert more < linear_probe([site], "superclass", 1.0, weights_of([site], 2)).macro.pooled


def test_planted_findings_are_all_superclasses_but_sttc() -> None:
    assert {name for name, has in zip(
        classes_of("superclass"), family_labels([{code: 100.0} for code in FINDINGS], "superclass").any(axis=0),
        strict=True,
    ) if has} == {"CD", "HYP", "MI", "NORM"}  # fmt: skip
