"""Alignment losses: values by hand and by torch's own losses, records without statements, invariances."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cosine_embedding_loss, cross_entropy, normalize

from fedecg.objectives import bank_loss, paper_loss


def random_case(seed, records=6, statements=9, dim=5):
    """Projected embeddings, bank and targets whose rows sum to 1, all float64."""
    draw = torch.Generator().manual_seed(seed)
    projected = torch.randn(records, dim, generator=draw, dtype=torch.float64)
    bank = torch.randn(statements, dim, generator=draw, dtype=torch.float64)
    weights = torch.rand(records, statements, generator=draw, dtype=torch.float64)
    return projected, bank, weights / weights.sum(dim=1, keepdim=True)


def test_bank_loss_of_two_opposite_statements_by_hand():
    bank = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    loss = bank_loss(torch.tensor([[3.0, 0.0]]), bank, torch.tensor([[1.0, 0.0]]), temperature=0.5)
    assert math.isclose(loss.item(), math.log1p(math.exp(-4.0)), rel_tol=1e-5)


def test_bank_loss_is_the_cross_entropy_of_torch():
    projected, bank, targets = random_case(0)
    logits = normalize(projected, dim=1) @ normalize(bank, dim=1).T / 0.1
    torch.testing.assert_close(bank_loss(projected, bank, targets, 0.1), cross_entropy(logits, targets))


def test_a_record_without_statements_adds_nothing_and_still_counts():
    projected, bank, targets = random_case(1)
    silent = torch.zeros_like(targets[:2])
    loss = bank_loss(projected, bank, torch.cat([targets[:4], silent]), 0.1)
    torch.testing.assert_close(loss, bank_loss(projected[:4], bank, targets[:4], 0.1) * 4 / 6)


def test_bank_loss_gradient_agrees_with_finite_differences_in_embedding_and_temperature():
    projected, bank, targets = random_case(2)
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, t: bank_loss(x, bank, targets, t), (projected.requires_grad_(), temperature)
    )


def test_losses_of_no_records_are_zero_and_keep_the_graph():
    projected = torch.zeros(0, 5, requires_grad=True)
    loss = bank_loss(projected, torch.randn(3, 5), torch.zeros(0, 3), 0.1)
    loss = loss + paper_loss(projected, torch.zeros(0, 5))
    loss.backward()
    assert loss.item() == 0
    assert projected.grad.shape == (0, 5)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), cut=st.integers(1, 5), scale=st.floats(0.01, 100.0))
def test_losses_are_sums_over_records_and_know_only_directions(seed, cut, scale):
    projected, bank, targets = random_case(seed)
    for loss in (lambda x, y: bank_loss(x, bank, y, 0.2), lambda x, y: paper_loss(x, y @ bank)):
        whole = loss(projected, targets) * 6
        parts = loss(projected[:cut], targets[:cut]) * cut + loss(projected[cut:], targets[cut:]) * (6 - cut)
        torch.testing.assert_close(whole, parts)
        order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(whole, loss(projected[order] * scale, targets[order]) * 6)


def test_paper_loss_is_the_cosine_embedding_loss_of_torch():
    projected, bank, targets = random_case(3)
    vectors = targets @ bank
    expected = cosine_embedding_loss(projected, vectors, torch.ones(6))
    torch.testing.assert_close(paper_loss(projected, vectors), expected)


def test_paper_loss_ignores_a_record_without_statements_which_still_counts():
    projected, bank, targets = random_case(4)
    targets[0] = 0
    rest = paper_loss(projected[1:], targets[1:] @ bank) * 5 / 6
    torch.testing.assert_close(paper_loss(projected, targets @ bank), rest)
    projected.requires_grad_()
    paper_loss(projected, targets @ bank).backward()
    assert projected.grad[0].abs().max() == 0
    assert projected.grad[1].abs().max() > 0
