"""A protected local round: what it refuses, what is drawn from where, what a site without data does."""

import copy
import re
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from dp_sites import (
    RECORDS,
    bank,
    baseline_of,
    noise_store,
    protection_of,
    site_of,
    small_network,
    study_with,
    weights_of,
)

from fedecg.config import StudySettings
from fedecg.errors import ModelError
from fedecg.privacy.dp_steps import Protection
from fedecg.privacy.independence import refuse_coupled_patients
from fedecg.training import Checkpoint, SiteData, Watch, site_baseline, train_align, train_survival

FEW = {"align": {"local-steps": 3, "batch-size": 8}, "survival": {"local-steps": 3, "batch-size": 8}}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return noise_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def site(store) -> SiteData:
    return site_of(store)


def few(**sections) -> StudySettings:
    return study_with(**{name: {**FEW.get(name, {}), **sections.get(name, {})} for name in {*FEW, *sections}})


def unchecked(sections) -> StudySettings:
    """Settings that would be refused when a study file is read."""
    settings = few()
    changed = {
        name: getattr(settings, name).model_copy(
            update={key.replace("-", "_"): to for key, to in keys.items()}
        )
        for name, keys in sections.items()
    }
    return settings.model_copy(update=changed)


def trained(
    stage: str, site: SiteData, settings: StudySettings, dp: Protection | None, network=None, **options
):
    """The network after a round, and what the site knows of it."""
    network = small_network(settings) if network is None else network
    if stage == "align":
        return network, train_align(network, site, settings, 1, bank(), dp=dp, **options)
    options = {"baseline": baseline_of(), "bank_vectors": bank(), **options}
    return network, train_survival(network, site, settings, 1, dp=dp, **options)


ALLOWED = [
    ("align", {"align": {"loss": "bank"}}),
    ("align", {"align": {"loss": "paper", "reconstruction": 0.0}}),
    ("survival", {"survival": {"loss": "cox-pooled"}}),
    ("survival", {"survival": {"loss": "cox-pooled", "baseline": "site", "reconstruction": 0.3}}),
    ("survival", {"survival": {"loss": "grouped", "bins": 4}}),
    ("survival", {"survival": {"loss": "cox-pooled", "alignment": 0.4}}),
    ("survival", {"survival": {"loss": "grouped", "bins": 4, "freeze-rounds": 1}}),
]


@pytest.mark.parametrize(("stage", "sections"), ALLOWED)
def test_losses_that_are_sums_over_patients_train_and_move_what_the_stage_trains(site, stage, sections):
    settings = few(**sections)
    before = weights_of(small_network(settings))
    network, report = trained(stage, site, settings, protection_of(settings))
    assert report.steps == 3
    assert np.isfinite(report.loss)
    assert not torch.equal(weights_of(network), before)


@pytest.mark.parametrize(
    ("stage", "sections", "reason", "remedy"),
    [
        ("survival", {"survival": {"loss": "cox-batch"}}, "patients of a batch", "cox-pooled"),
        ("survival", {"survival": {"loss": "cox-site"}}, "patients of the site", "grouped"),
        ("align", {"align": {"targets": "shuffled"}}, "another patient's states", "stated"),
        ("survival", {"survival": {"alignment": 0.2}, "align": {"targets": "shuffled"}}, "another", "stated"),
    ],
)
def test_coupled_losses_are_refused_with_the_reason_and_what_to_use(site, stage, sections, reason, remedy):
    settings = unchecked(sections)
    network = small_network(settings)
    before = weights_of(network)
    with pytest.raises(ModelError, match=f"(?s)FECG-386.*no sum over patients.*{reason}.*{remedy}"):
        trained(stage, site, settings, protection_of(settings), network)
    assert torch.equal(weights_of(network), before)


def test_a_contrast_in_the_batch_is_refused_though_the_settings_would_let_it_pass(site):
    settings = few()
    contrast = settings.model_copy(update={"align": settings.align.model_copy(update={"loss": "infonce"})})
    with pytest.raises(ModelError, match=r"(?s)FECG-386.*infonce.*contrasts the records of a batch.*bank"):
        trained("align", site, contrast, protection_of(settings))


def said_without_a_noised_baseline(site: SiteData, baseline: str) -> str:
    """The refusal to train; nothing, if a round was trained."""
    settings = few(survival={"baseline": baseline})
    try:
        trained("survival", site, settings, protection_of(settings), baseline=None)
    except ModelError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("baseline", ["shared", "site"])
def test_the_exact_baseline_of_the_sites_own_records_is_never_used(site, baseline):
    told = said_without_a_noised_baseline(site, baseline)
    assert re.search(r"(?s)FECG-387.*noised sums.*site's own records would tell", told)


def test_an_exact_baseline_of_the_site_is_noticed(site, monkeypatch):
    exact = site_baseline(small_network(few()), site, site.rows("train"), 10.0)
    monkeypatch.setattr("fedecg.training.local.noised_baseline", lambda _: exact)
    assert said_without_a_noised_baseline(site, "site") == ""


def test_the_baseline_that_was_handed_in_is_what_the_loss_reads(site):
    settings = few(survival={"baseline": "site"})
    dp = protection_of(settings, noise=0.0)
    other = replace(baseline_of(), cumulative_hazard=3 * baseline_of().cumulative_hazard)
    one, two = (
        trained("survival", site, settings, dp, baseline=given)[0] for given in (baseline_of(), other)
    )
    assert not torch.equal(weights_of(one), weights_of(two))


@pytest.mark.parametrize("stage", ["align", "survival"])
def test_the_authors_preset_is_refused(site, stage):
    settings = unchecked({"model": {"preset": "paper"}})
    with pytest.raises(ModelError, match="FECG-38[58]"):
        trained(stage, site, settings, protection_of(settings))


@pytest.mark.parametrize("stage", ["align", "survival"])
@pytest.mark.parametrize("rows", [[], [1], [1, 2]], ids=["nobody", "one", "two-without-events"])
def test_a_site_with_hardly_anybody_makes_all_its_steps_all_the_same(store, stage, rows):
    settings = few()
    before = weights_of(small_network(settings))
    network, report = trained(stage, site_of(store, rows), settings, protection_of(settings))
    assert report.steps == 3
    assert not torch.equal(weights_of(network), before)


def noise_differs_between_rounds(stage: str, site: SiteData, settings: StudySettings, dp: Protection) -> bool:
    one, two = (weights_of(trained(stage, site, settings, dp)[0]) for _ in range(2))
    moved = one != weights_of(small_network(settings))
    return bool((one != two)[moved].double().mean() > 0.99)


@pytest.mark.parametrize("stage", ["align", "survival"])
def test_two_rounds_with_the_same_study_seed_have_other_noise(site, stage):
    settings = few()
    assert noise_differs_between_rounds(stage, site, settings, protection_of(settings, seed=None))


def test_noise_from_the_study_seed_is_noticed(site):
    settings = few()
    assert not noise_differs_between_rounds(
        "align", site, settings, protection_of(settings, seed=settings.seed)
    )


@pytest.mark.parametrize("stage", ["align", "survival"])
def test_dropout_and_lead_masks_are_those_of_the_study_seed(site, stage):
    settings = few(model={"dropout": 0.5})
    quiet = protection_of(settings, noise=0.0)
    one, two = (weights_of(trained(stage, site, settings, quiet)[0]) for _ in range(2))
    assert torch.equal(one, two)
    other = weights_of(trained(stage, site, settings.model_copy(update={"seed": 5}), quiet)[0])
    assert not torch.equal(one, other)


def a_step_is_the_same_however_many_fit_in_memory(site: SiteData, stage: str) -> bool:
    sgd = {"optimizer": "sgd", "learning-rate": 0.1}
    settings = few(model={"dropout": 0.5}, align={**sgd}, survival={**sgd})
    quiet = protection_of(settings, noise=0.0)
    whole, parts = (
        weights_of(trained(stage, site, settings, replace(quiet, physical_batch=size))[0]) for size in (64, 3)
    )
    start = weights_of(small_network(settings))
    assert (whole - start).norm() > 1e-3
    return bool((whole - parts).abs().max() < 1e-6)


@pytest.mark.parametrize("stage", ["align", "survival"])
def test_patients_who_do_not_fit_in_memory_together_have_the_same_masks(site, stage):
    """Else one patient more would give others another mask, and move the sum by more than the clip."""
    assert a_step_is_the_same_however_many_fit_in_memory(site, stage)


def test_masks_that_go_on_from_batch_to_batch_are_noticed(site, monkeypatch):
    monkeypatch.setattr("fedecg.training.protected.seeded_torch", lambda *_: nullcontext())
    monkeypatch.setattr("fedecg.training.protected.refuse_coupled_patients", lambda *_: None)
    assert not a_step_is_the_same_however_many_fit_in_memory(site, "survival")


def test_a_probe_finds_masks_that_go_on_from_batch_to_batch(site, monkeypatch):
    settings = few(model={"dropout": 0.5})
    monkeypatch.setattr("fedecg.training.protected.seeded_torch", lambda *_: nullcontext())
    with pytest.raises(ModelError, match="FECG-388"):
        trained("survival", site, settings, protection_of(settings))


class Everybody(np.random.Generator):
    """Lets every patient into every step."""

    def random(self, size=None, *_):
        return np.zeros(size)


def everybody() -> np.random.Generator:
    return Everybody(np.random.PCG64(1))


@pytest.mark.parametrize(
    ("stage", "sections"),
    [
        ("align", {"align": {"masked-leads": 0}}),
        ("survival", {"survival": {"loss": "cox-pooled", "reconstruction": 0.2}}),
        ("survival", {"survival": {"loss": "grouped", "bins": 4}}),
    ],
)
def test_without_clip_and_noise_steps_with_everybody_are_plain_steps(site, stage, sections):
    sgd = {
        "batch-size": RECORDS,
        "optimizer": "sgd",
        "learning-rate": 0.05,
        "clip-norm": 1e6,
        "local-steps": 2,
    }
    settings = few(model={"dropout": 0.0}, **{stage: {**sections[stage], **sgd}})
    dp = protection_of(settings, noise=0.0, clip=1e6, hazard_clip=np.exp(settings.survival.exp_bound))
    protected = trained(stage, site, settings, replace(dp, randomness=everybody))[0]
    plain = trained(stage, site, settings, None)[0]
    start = weights_of(small_network(settings))
    moved, difference = (weights_of(plain) - start).norm(), (weights_of(protected) - weights_of(plain)).norm()
    assert moved > 1e-2
    assert difference < 1e-4 * moved


@pytest.mark.parametrize("stage", ["align", "survival"])
def test_one_patient_moves_a_noiseless_step_by_at_most_the_clip(site, store, stage):
    """Through the whole path, with dropout and lead masks: neighbours that differ in one patient."""
    steps = {"local-steps": 1, "batch-size": 1, "optimizer": "sgd", "learning-rate": 1.0, "weight-decay": 0.0}
    settings = study_with(align=steps, survival=steps, privacy={"physical-batch": 3, "clip": 0.01})
    rows = np.arange(12)

    dp = replace(protection_of(settings, noise=0.0), randomness=everybody)
    start = weights_of(small_network(settings))
    whole = weights_of(trained(stage, site_of(store, rows), settings, dp)[0])
    assert (whole - start).norm() > 0.01
    for left_out in (0, 11):
        without = weights_of(trained(stage, site_of(store, rows[rows != left_out]), settings, dp)[0])
        # float32 weights of norm about 30 are rounded; the gradients below the clip are not
        assert (whole - without).norm() <= 0.01 * (1 + 1e-3)


def test_a_patient_with_several_records_is_aligned_as_one(store):
    settings = few()
    site = site_of(store, range(12), patient=np.array([5] * 9 + [6, 7, 8]))
    drawn: list[np.ndarray] = []
    read = SiteData.signals
    dp = replace(protection_of(settings, noise=0.0), sampling_rate=0.999999)
    watched = copy.copy(site)
    object.__setattr__(watched, "signals", lambda rows: (drawn.append(rows), read(site, rows))[1])
    trained("align", watched, settings, dp)
    for rows in drawn[-3:]:
        assert len(rows) == 4
        assert len(set(site.cohort.patient[rows])) == 4


def test_hazards_beyond_the_clip_count_as_the_clip_in_the_gradient(site):
    """The same B as in the sums: H0 from clipped sums and clipped hazards then belong together."""
    settings = few(
        survival={"optimizer": "sgd", "weight-decay": 0.0, "learning-rate": 1e-3, "local-steps": 1}
    )
    found = []
    for clip in (1.0, 1e6):
        network = small_network(settings)
        with torch.no_grad():
            network.risk.layers[4].weight.mul_(40)
        dp = protection_of(settings, noise=0.0, clip=1e9, hazard_clip=clip)
        found.append(weights_of(trained("survival", site, settings, dp, network)[0]))
    assert not torch.equal(*found)


def test_a_protected_round_writes_no_checkpoint_and_shows_its_progress(site, tmp_path):
    settings = few()
    seen: list[tuple[int, int]] = []
    watch = Watch(Checkpoint(tmp_path / "round", "key", every_s=0.0), lambda *at: seen.append(at))
    trained("align", site, settings, protection_of(settings), watch=watch)
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert not list(tmp_path.iterdir())


def test_what_the_study_says_is_what_protects():
    settings = study_with(
        privacy={"clip": 0.7, "physical-batch": 5, "hazard-clip": 4.0, "sampling-rate": 0.2}
    )
    dp = Protection.of(settings.privacy, 1.3)
    assert (dp.noise_multiplier, dp.clip, dp.physical_batch, dp.sampling_rate) == (1.3, 0.7, 5, 0.2)
    assert np.exp(dp.exp_bound) == pytest.approx(4.0)


class OneOverflows(SiteData):
    """A site with a patient on whose ECG the network overflows, as under weights that were chosen for that."""

    def signals(self, rows):
        signals = super().signals(rows)
        signals[torch.from_numpy(np.isin(rows, [0]))] = torch.inf
        return signals


@pytest.mark.parametrize("stage", ["align", "survival"])
def test_whether_a_site_goes_on_does_not_tell_of_a_patient(site, stage):
    """A refusal travels as a code, which no noise covers; the patient's share of the sum counts as nothing."""
    settings = few()
    fields = {name: getattr(site, name) for name in SiteData.__dataclass_fields__}
    network, report = trained(stage, OneOverflows(**fields), settings, protection_of(settings))
    assert report.steps == 3
    assert bool(weights_of(network).isfinite().all())


@pytest.mark.parametrize("stage", ["align", "survival"])
def test_the_probe_looks_at_nobody_of_the_site(site, stage, monkeypatch):
    looking: list[str] = []
    looked: list[str] = []

    class Watched(SiteData):
        def signals(self, rows):
            looked.extend(looking)
            return super().signals(rows)

    def watched(*arguments):
        looking.append("at a patient")
        refuse_coupled_patients(*arguments)
        looking.clear()
        looked.append("done")

    monkeypatch.setattr("fedecg.training.protected.refuse_coupled_patients", watched)
    fields = {name: getattr(site, name) for name in SiteData.__dataclass_fields__}
    trained(stage, Watched(**fields), few(), protection_of(few()))
    assert looked == ["done"]
