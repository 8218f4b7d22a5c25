"""InfoNCE with many positives against naive loops; class weights of the bank loss; gradients; edges."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, normalize

from fedecg.objectives import bank_loss, infonce_loss


def random_case(seed: int, records: int = 7, dim: int = 5, groups: int = 4):
    """Projected embeddings, one target vector a group, who is in the same group; float64."""
    draw = torch.Generator().manual_seed(seed)
    projected = torch.randn(records, dim, generator=draw, dtype=torch.float64)
    group = torch.randint(groups, (records,), generator=draw)
    vectors = torch.randn(groups, dim, generator=draw, dtype=torch.float64)[group]
    return projected, vectors, group[:, None] == group[None]


def naive(projected, vectors, same, temperature: float) -> float:
    """Loops over anchors, positives and candidates, both ways."""
    records = len(projected)
    stated = [row for row in range(records) if bool((vectors[row] != 0).any())]

    def cosine(ecg: int, target: int) -> float:
        one, other = projected[ecg].tolist(), vectors[target].tolist()
        dot = sum(a * b for a, b in zip(one, other, strict=True))
        return dot / math.sqrt(sum(a * a for a in one)) / math.sqrt(sum(b * b for b in other))

    total = 0.0
    for way in (lambda anchor, other: cosine(anchor, other), lambda anchor, other: cosine(other, anchor)):
        for anchor in stated:
            all_of_them = math.log(sum(math.exp(way(anchor, other) / temperature) for other in stated))
            positives = [other for other in stated if same[anchor, other]]
            total += sum(all_of_them - way(anchor, other) / temperature for other in positives) / len(
                positives
            )
    return total / (2 * records)


def test_infonce_is_what_loops_over_anchors_positives_and_candidates_give():
    for seed in range(5):
        projected, vectors, same = random_case(seed)
        if seed >= 3:
            vectors[2] = 0  # states nothing: no anchor, no candidate, and still one of N
        found = infonce_loss(projected, vectors, same, 0.3)
        assert math.isclose(found.item(), naive(projected, vectors, same, 0.3), rel_tol=1e-10)


def test_without_equal_records_it_is_the_mean_of_torchs_two_cross_entropies():
    projected, vectors, _ = random_case(0)
    vectors = torch.randn(7, 5, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    logits = normalize(projected, dim=1) @ normalize(vectors, dim=1).T / 0.1
    own = torch.arange(7)
    expected = (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2
    torch.testing.assert_close(
        infonce_loss(projected, vectors, torch.eye(7, dtype=torch.bool), 0.1), expected
    )


def test_records_that_state_the_same_are_drawn_together_and_as_negatives_would_be_pushed_apart():
    """Two ECGs that lie, like their two targets, 0.3 to either side of one direction; a third lies opposite."""
    angles = torch.tensor([0.3, -0.3, math.pi], dtype=torch.float64)
    vectors = torch.stack([angles.cos(), angles.sin()], dim=1)
    same = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)

    def slope(positives):
        """Of the loss in the first ECG's angle: descent goes the other way."""
        moved = angles.clone().requires_grad_()
        projected = torch.stack([moved.cos(), moved.sin()], dim=1)
        return torch.autograd.grad(infonce_loss(projected, vectors, positives, 0.05), moved)[0][0].item()

    assert slope(same) > 0.5
    assert slope(torch.eye(3, dtype=torch.bool)) < -1e-3


def test_a_batch_of_one_of_none_of_equals_and_of_silence_are_finite():
    projected, vectors, same = random_case(1)
    for rows in (0, 1):
        ecgs = projected[:rows].clone().requires_grad_()
        loss = infonce_loss(ecgs, vectors[:rows], same[:rows, :rows], 0.1)
        loss.backward()
        assert loss.item() == 0
        assert torch.isfinite(ecgs.grad).all()
    equal = infonce_loss(projected, vectors[:1].expand(7, -1), torch.ones(7, 7, dtype=torch.bool), 0.01)
    assert torch.isfinite(equal)
    ecgs = projected.clone().requires_grad_()
    silent = infonce_loss(ecgs, torch.zeros_like(vectors), torch.ones(7, 7, dtype=torch.bool), 0.1)
    silent.backward()
    assert silent.item() == 0
    assert ecgs.grad.abs().max() == 0


def test_the_gradients_agree_with_finite_differences():
    projected, vectors, same = random_case(2)
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, t: infonce_loss(x, vectors, same, t), (projected.requires_grad_(), temperature)
    )
    bank = torch.randn(4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    targets = torch.softmax(
        torch.randn(7, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64), dim=1
    )
    weights = torch.tensor([0.25, 1.0, 4.0, 2.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x, t: bank_loss(x, bank, targets, t, weights), (projected.requires_grad_(), temperature)
    )


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.01, 100.0))
def test_infonce_knows_neither_order_nor_length(seed, scale):
    projected, vectors, same = random_case(seed)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(seed))
    moved = infonce_loss(projected[order] * scale, vectors[order] / scale, same[order][:, order], 0.2)
    torch.testing.assert_close(moved, infonce_loss(projected, vectors, same, 0.2))


def test_class_weights_by_hand_and_by_torch():
    projected, _, _ = random_case(3)
    bank = torch.randn(4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights = torch.tensor([0.25, 1.0, 4.0, 2.0], dtype=torch.float64)
    stated = torch.tensor([0, 1, 2, 3, 2, 2, 0])
    logits = normalize(projected, dim=1) @ normalize(bank, dim=1).T / 0.1
    expected = cross_entropy(logits, stated, weight=weights, reduction="sum") / 7
    one_hot = torch.eye(4, dtype=torch.float64)[stated]
    torch.testing.assert_close(bank_loss(projected, bank, one_hot, 0.1, weights), expected)
    ones = torch.ones(4, dtype=torch.float64)
    torch.testing.assert_close(
        bank_loss(projected, bank, one_hot, 0.1, ones), bank_loss(projected, bank, one_hot, 0.1)
    )


def test_the_weighted_bank_loss_is_still_a_sum_over_records():
    projected, _, _ = random_case(4)
    bank = torch.randn(4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    targets = torch.softmax(
        torch.randn(7, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64), dim=1
    )
    weights = torch.tensor([0.25, 1.0, 4.0, 2.0], dtype=torch.float64)
    each = [
        bank_loss(projected[row : row + 1], bank, targets[row : row + 1], 0.1, weights) for row in range(7)
    ]
    torch.testing.assert_close(bank_loss(projected, bank, targets, 0.1, weights) * 7, torch.stack(each).sum())
