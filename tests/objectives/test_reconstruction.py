"""Reconstruction loss: by hand, against torch, as a sum over records."""

import torch
from torch.nn.functional import mse_loss

from fedecg.objectives import reconstruction_loss


def test_an_error_in_one_lead_of_one_record_by_hand():
    original = torch.zeros(2, 12, 4)
    reconstructed = original.clone()
    reconstructed[1, 3] = 2.0
    assert reconstruction_loss(reconstructed, original).item() == torch.tensor(4.0 / 12 / 2).item()


def test_it_is_the_mean_squared_error_of_torch():
    first, second = torch.randn(2, 5, 12, 32, generator=torch.Generator().manual_seed(0)).unbind(0)
    torch.testing.assert_close(reconstruction_loss(first, second), mse_loss(first, second))


def test_of_no_records_it_is_zero_and_not_nan():
    assert reconstruction_loss(torch.zeros(0, 12, 8), torch.zeros(0, 12, 8)).item() == 0
