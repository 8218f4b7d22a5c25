"""A survival round: equal to a pooled step, bit-equal when repeated, sound at sites without events or patients."""

import copy

import numpy as np
import pytest
import torch

from fedecg.errors import CohortError, ModelError
from fedecg.objectives import Baseline, breslow, cox_loss, event_time_grid
from fedecg.training import log_hazards, survival_sums, train_survival

FULL_BATCH = {"local-steps": 1, "batch-size": 1000, "optimizer": "sgd", "weight-decay": 0.0, "clip-norm": 1e9}
RATE = 0.05
LOSSES = [
    {"loss": "cox-batch"},
    {"loss": "cox-site"},
    {"loss": "cox-site", "batch-size": 500},
    {"loss": "cox-pooled"},
    {"loss": "cox-pooled", "baseline": "site"},
    {"loss": "cox-batch", "reconstruction": 0.5},
    {"loss": "grouped"},
]


def pooled_baseline(network, sites, exp_bound=10.0):
    """As the federation makes it, with a bin for every event time."""
    events = np.concatenate([site.cohort.event for site in sites])
    days = np.concatenate([site.cohort.follow_up_days for site in sites])
    edges = event_time_grid(events, days)
    sums = [survival_sums(network, site, site.rows("train"), edges, exp_bound) for site in sites]
    return Baseline(edges, breslow(sum(part.events for part in sums), sum(part.exp_sums for part in sums)))


def vector(network):
    return torch.nn.utils.parameters_to_vector(network.parameters()).detach()


def risk_weights(network):
    """Mask of the risk head's places in `vector`."""
    names = [name for name, weight in network.named_parameters() for _ in range(weight.numel())]
    return torch.tensor([name == "risk.weight" for name in names])


def run(network, site, settings, round_index=1, baseline=None):
    """Train a copy; weights before are kept."""
    trained_network = copy.deepcopy(network)
    return (
        vector(trained_network),
        train_survival(trained_network, site, settings, round_index, baseline),
        trained_network,
    )


def moved(network, site, settings, round_index=1, baseline=None):
    before, _, after = run(network, site, settings, round_index, baseline)
    return vector(after) - before


@pytest.fixture
def three_sites(make_site):
    """Unequal sites, the last without events, and all their patients in one."""
    sizes = {"a": range(30), "b": range(30, 110), "c": range(110, 121)}
    sites = [make_site(rows, name) for name, rows in sizes.items()]
    sites[2] = make_site(sizes["c"], "c", event=np.zeros(11, dtype=bool))
    event = np.concatenate([site.cohort.event for site in sites])
    return sites, make_site(range(121), "pooled", event=event)


def test_one_step_at_each_site_averaged_by_patients_is_one_pooled_step(three_sites, linear_network, study):
    sites, pooled = three_sites
    network = linear_network()
    settings = study(survival={**FULL_BATCH, "learning-rate": RATE})
    baseline = pooled_baseline(network, sites)
    moves = [moved(network, site, settings, baseline=baseline) * len(site.cohort) for site in sites]
    federated = sum(moves) / len(pooled.cohort)

    whole = moved(network, pooled, settings, baseline=baseline)
    assert (federated - whole).norm() < 1e-6 * whole.norm()

    # The same step written without the fixed-baseline form: the pooled partial likelihood, per patient.
    event, days = torch.from_numpy(pooled.cohort.event), torch.from_numpy(pooled.cohort.follow_up_days)
    loss = cox_loss(network.log_hazard(network.embed(pooled.signals(np.arange(121)))), event, days, "breslow")
    loss.backward()
    scale = RATE * event.sum() / len(event)
    gradient = torch.cat(
        [(torch.zeros_like(w) if w.grad is None else w.grad).flatten() for w in network.parameters()]
    )
    assert (federated + scale * gradient).norm() < 1e-6 * federated.norm()
    assert whole.norm() > 1e-3  # there was a step to compare


def test_a_site_without_events_changes_the_pooled_step(three_sites, linear_network, study):
    sites, _ = three_sites
    network, settings = linear_network(), study(survival={**FULL_BATCH, "learning-rate": RATE})
    silent = moved(network, sites[2], settings, baseline=pooled_baseline(network, sites))
    assert silent.norm() > 1e-4


def test_splitting_a_site_in_two_leaves_the_average_step_alone(make_site, linear_network, study):
    network, settings = linear_network(), study(survival={**FULL_BATCH, "learning-rate": RATE})
    whole, parts = make_site(range(90)), [make_site(range(25)), make_site(range(25, 90))]
    baseline = pooled_baseline(network, [whole])
    average = sum(moved(network, part, settings, baseline=baseline) * len(part.cohort) for part in parts) / 90
    torch.testing.assert_close(
        average, moved(network, whole, settings, baseline=baseline), rtol=1e-8, atol=1e-12
    )


def test_cox_site_takes_the_same_step_in_one_batch_as_with_its_own_baseline(make_site, linear_network, study):
    network, site = linear_network(), make_site(range(80))
    common = {**FULL_BATCH, "learning-rate": RATE, "ties": "breslow"}
    one_batch = moved(network, site, study(survival={**common, "loss": "cox-site"}))
    fixed = moved(network, site, study(survival={**common, "loss": "cox-pooled", "baseline": "site"}))
    per_event = len(site.cohort) / site.cohort.event.sum()
    torch.testing.assert_close(one_batch, fixed * per_event, rtol=1e-8, atol=1e-12)


def test_cox_site_in_one_batch_is_the_partial_likelihood_with_the_ties_that_are_set(
    make_site, linear_network, study
):
    network, site = linear_network(), make_site(range(80))
    step = moved(network, site, study(survival={**FULL_BATCH, "learning-rate": RATE, "loss": "cox-site"}))
    event, days = torch.from_numpy(site.cohort.event), torch.from_numpy(site.cohort.follow_up_days)
    cox_loss(network.log_hazard(network.embed(site.signals(np.arange(80)))), event, days, "efron").backward()
    expected = -RATE * network.risk.weight.grad.flatten()
    torch.testing.assert_close(step[risk_weights(network)], expected)


def test_main_loss_and_reconstruction_share_the_step_as_set(make_site, linear_network, study):
    network, site = linear_network(), make_site(range(30))
    main, mixed, reconstruction = (
        moved(
            network,
            site,
            study(survival={**FULL_BATCH, "learning-rate": RATE, "loss": "cox-batch", "reconstruction": r}),
        )
        for r in (0.0, 0.25, 1.0)
    )
    torch.testing.assert_close(mixed, 0.75 * main + 0.25 * reconstruction, rtol=1e-8, atol=1e-12)
    assert reconstruction[risk_weights(network)].abs().max() == 0


def test_cox_site_in_small_batches_adds_up_to_the_whole_risk_set(make_site, linear_network, study):
    network, site = linear_network(), make_site(range(80))
    tiny = {**FULL_BATCH, "learning-rate": 1e-7, "ties": "breslow", "loss": "cox-site"}
    whole = moved(network, site, study(survival=tiny))
    epoch = moved(network, site, study(survival={**tiny, "batch-size": 10, "local-steps": 8}))
    assert (epoch / 8 - whole).norm() < 1e-4 * whole.norm()


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_falls_and_the_planted_feature_is_found(make_site, linear_network, study, feature, loss):
    network, train, held_out = linear_network(dropout=0.2), make_site(range(180)), np.arange(180, 240)
    settings = study(survival={"batch-size": 60, "local-steps": 40, "learning-rate": 3e-3, **loss})
    losses = []
    for round_index in range(3):
        baseline = pooled_baseline(network, [train])
        losses.append(train_survival(network, train, settings, round_index, baseline).loss)
    assert losses[-1] < losses[0]
    scores = log_hazards(network, make_site(range(240)), held_out)
    assert np.corrcoef(scores, feature[held_out])[0, 1] > 0.8


@pytest.mark.parametrize("loss", LOSSES)
def test_a_repeated_round_is_bit_equal_and_leaves_torchs_generator_alone(
    make_site, linear_network, study, loss
):
    network, site = linear_network(dropout=0.3), make_site(range(60))
    settings = study(survival={"batch-size": 16, "local-steps": 5, **loss})
    baseline = pooled_baseline(network, [site])
    first = moved(network, site, settings, baseline=baseline)
    torch.rand(17)
    state = torch.get_rng_state()
    assert torch.equal(moved(network, site, settings, baseline=baseline), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(moved(network, site, settings, round_index=2, baseline=baseline), first)
    reseeded = settings.model_copy(update={"seed": 1})
    assert not torch.equal(moved(network, site, reseeded, baseline=baseline), first)


def test_fedprox_keeps_a_site_closer_to_the_rounds_weights(make_site, linear_network, study):
    network, site = linear_network(), make_site(range(60))
    survival = {"loss": "cox-batch", "optimizer": "sgd", "learning-rate": RATE, "local-steps": 30}
    free = moved(network, site, study(survival=survival))
    held = moved(
        network, site, study(survival=survival, federation={"algorithm": "fedprox", "proximal-mu": 5.0})
    )
    assert held.norm() < 0.7 * free.norm()


@pytest.mark.parametrize(
    "loss", [{"loss": "cox-batch"}, {"loss": "cox-site"}, {"loss": "cox-pooled", "baseline": "site"}]
)
def test_a_site_without_events_stays_as_it_was_where_it_can_learn_nothing(
    make_site, linear_network, study, loss
):
    site = make_site(range(12), event=np.zeros(12, dtype=bool))
    before, trained, network = run(linear_network(), site, study(survival={**loss, "batch-size": 4}))
    assert torch.equal(vector(network), before)
    assert (trained.patients, trained.events, trained.steps, trained.loss) == (12, 0, 0, 0.0)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_site_without_events_still_reconstructs(make_site, linear_network, study, loss):
    network, site = linear_network(), make_site(range(12), event=np.zeros(12, dtype=bool))
    settings = study(survival={**loss, "reconstruction": 0.5, "batch-size": 4, "local-steps": 3})
    baseline = Baseline(np.array([0.0, 100.0]), np.array([0.0, 0.2]))
    before, trained, after = run(network, site, settings, baseline=baseline)
    assert trained.steps == 3
    assert torch.isfinite(vector(after)).all()
    assert not torch.equal(vector(after), before)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("patients", [0, 1])
def test_a_site_of_one_patient_or_none_never_gives_nan(make_site, linear_network, study, loss, patients):
    site = make_site(range(patients))
    settings = study(survival={**loss, "local-steps": 2})
    baseline = Baseline(np.array([0.0, 100.0]), np.array([0.0, 0.2]))
    _, trained, network = run(linear_network(), site, settings, baseline=baseline)
    assert trained.patients == patients
    assert np.isfinite(trained.loss)
    assert torch.isfinite(vector(network)).all()
    assert trained.steps == (0 if patients == 0 else 2)


def test_only_the_training_part_teaches(make_site, linear_network, study):
    part = np.array(["train"] * 40 + ["validation"] * 10 + ["test"] * 10)
    settings = study(survival={"loss": "cox-batch", "local-steps": 3})
    with_rest = make_site(range(60), part=part)
    alone = make_site(range(40))
    assert torch.equal(moved(linear_network(), with_rest, settings), moved(linear_network(), alone, settings))


def test_a_shared_baseline_that_is_missing_is_refused(make_site, linear_network, study):
    with pytest.raises(ModelError) as refusal:
        train_survival(linear_network(), make_site(range(9)), study(), 1, None)
    assert refusal.value.code == "FECG-325"
    assert "found no baseline hazard" in str(refusal.value)
    assert 'survival.baseline = "site"' in refusal.value.fix


def test_a_patient_with_two_training_records_is_refused(make_site, linear_network, study):
    site = make_site(range(5), patient=np.array([4, 5, 4, 6, 5]))
    with pytest.raises(CohortError) as refusal:
        train_survival(linear_network(), site, study(), 1, None)
    assert refusal.value.code == "FECG-231"
    assert "2 of 5 records of patients who have another one there" in str(refusal.value)
    assert "index ECG" in refusal.value.fix


@pytest.mark.parametrize("loss", LOSSES)
def test_late_entries_change_the_step_of_every_loss(make_site, linear_network, study, loss):
    late = make_site(range(40)).cohort.follow_up_days / 2
    settings = study(survival={**FULL_BATCH, "learning-rate": RATE, **loss})
    steps = []
    for entry_days in (np.zeros(40), late):
        site, network = make_site(range(40), entry_days=entry_days), linear_network()
        steps.append(moved(network, site, settings, baseline=pooled_baseline(network, [site])))
    assert (steps[0] - steps[1]).norm() > 1e-6 * steps[0].norm()


def test_grouped_learns_its_intercepts_and_needs_the_surveys_baseline(make_site, linear_network, study):
    site, network = make_site(range(60)), linear_network()
    settings = study(survival={"loss": "grouped", "batch-size": 60, "local-steps": 5})
    _, _, after = run(network, site, settings, baseline=pooled_baseline(network, [site]))
    assert after.intercepts.abs().max() > 1e-4
    with pytest.raises(ModelError, match="FECG-325"):
        train_survival(network, site, settings, 1, None)


def test_a_diverging_round_is_refused(make_site, linear_network, study):
    network = linear_network()
    settings = study(
        survival={
            "loss": "cox-batch",
            "optimizer": "sgd",
            "learning-rate": 1e200,
            "clip-norm": 1e200,
            "local-steps": 9,
        }
    )
    with pytest.raises(ModelError) as refusal:
        train_survival(network, make_site(range(30)), settings, 1, None)
    assert refusal.value.code == "FECG-323"
