"""Codes left out of alignment are nobody's target and nobody's negative."""

import numpy as np
import pytest
import torch

from fedecg.errors import TextError
from fedecg.objectives import bank_loss
from fedecg.text import load_bank, targets
from fedecg.text.left_out import shown_vectors, targets_without

BANK = load_bank("minilm-demo")
STATED = [{"AFIB": 0, "LVH": 100}, {"AFIB": 100}, {"NORM": 100, "SR": 0}]


def test_the_other_codes_share_what_is_left_out() -> None:
    kept = targets_without(targets(STATED, BANK), BANK, ("AFIB",))
    assert kept[0, BANK.codes.index("LVH")] == 1.0
    assert not kept[1].any()  # nothing else is stated
    np.testing.assert_array_equal(kept[2], targets(STATED, BANK)[2])
    assert not kept[:, BANK.codes.index("AFIB")].any()


def test_the_loss_is_that_of_a_bank_without_them() -> None:
    generator = torch.Generator().manual_seed(0)
    projected = torch.randn((3, BANK.vectors.shape[1]), generator=generator)
    left_out = ("AFIB", "CLBBB")
    rows = [at for at, code in enumerate(BANK.codes) if code not in left_out]
    wanted = torch.from_numpy(targets_without(targets(STATED, BANK), BANK, left_out))
    found = bank_loss(projected, torch.from_numpy(shown_vectors(BANK, left_out)), wanted, 0.1)
    smaller = bank_loss(projected, torch.from_numpy(BANK.vectors[rows]), wanted[:, rows], 0.1)
    whole = bank_loss(projected, torch.from_numpy(BANK.vectors), wanted, 0.1)
    assert found.item() == pytest.approx(smaller.item(), rel=1e-5)
    assert found.item() < whole.item()  # two negatives fewer


def test_the_gradient_is_finite_and_does_not_see_them() -> None:
    projected = torch.randn((3, BANK.vectors.shape[1]), generator=torch.Generator().manual_seed(1))
    gradients = []
    for replaced in (False, True):
        bank = torch.from_numpy(shown_vectors(BANK, ("AFIB",))).clone()
        mine = projected.clone().requires_grad_()
        wanted = torch.from_numpy(targets_without(targets(STATED, BANK), BANK, ("AFIB",)))
        if replaced:
            bank = bank[bank.any(dim=1)]
            wanted = wanted[:, [at for at, code in enumerate(BANK.codes) if code != "AFIB"]]
        bank_loss(mine, bank, wanted, 0.1).backward()
        gradients.append(mine.grad)
    assert torch.isfinite(gradients[0]).all()
    torch.testing.assert_close(gradients[0], gradients[1])


def test_codes_that_the_bank_does_not_have_are_refused() -> None:
    with pytest.raises(
        TextError, match=r"FECG-378 align.leave-out: found 1 of 2 codes that the bank does not have"
    ):
        shown_vectors(BANK, ("AFIB", "LBBBB"))


def test_leaving_out_all_is_refused() -> None:
    with pytest.raises(TextError, match=r"FECG-378 align.leave-out: found 70 of the bank's 71 codes"):
        shown_vectors(BANK, BANK.codes[:70])
