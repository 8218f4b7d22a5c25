"""Seeds of a local round: one stream for each seed, site, stage and round; torch's own state is left alone."""

import hashlib

import pytest
import torch

from fedecg.errors import ModelError
from fedecg.training import seeded_torch, site_generator
from fedecg.training.randomness import repeated_seed

BASE = (7, "site-a", "align", 3)
OTHERS = [
    (8, "site-a", "align", 3),
    (7, "site-b", "align", 3),
    (7, "site-a", "survival", 3),
    (7, "site-a", "align", 4),
]


def torch_draw(*names):
    with seeded_torch(*names):
        return torch.rand(4)


def test_the_same_names_give_the_same_streams():
    assert site_generator(*BASE).random(4).tolist() == site_generator(*BASE).random(4).tolist()
    assert torch.equal(torch_draw(*BASE), torch_draw(*BASE))


@pytest.mark.parametrize("other", OTHERS)
def test_any_other_name_gives_other_streams(other):
    assert site_generator(*BASE).random() != site_generator(*other).random()
    assert not torch.equal(torch_draw(*BASE), torch_draw(*other))


def test_fields_do_not_run_into_each_other():
    assert site_generator(7, "site1", "align", 2).random() != site_generator(7, "site", "align", 12).random()


def test_torch_goes_on_outside_as_if_nothing_had_been_drawn():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    torch_draw(*BASE)
    assert torch.equal(torch.rand(3), expected)


def test_torchs_own_state_comes_back_after_an_error_too():
    state = torch.get_rng_state()
    with pytest.raises(ModelError), seeded_torch(*BASE):
        raise ModelError("FECG-323", "training", found="a loss that is not finite", expected="finite numbers")
    assert torch.equal(torch.get_rng_state(), state)


def test_a_stream_does_not_depend_on_what_was_drawn_before():
    first = torch_draw(*BASE)
    torch.rand(11)
    assert torch.equal(torch_draw(*BASE), first)


def test_a_study_that_trains_again_has_its_own_seed_first_and_others_by_a_stated_rule():
    assert repeated_seed(7, 0) == 7
    digest = hashlib.sha256(b'["repeat", 7, 2]').digest()
    assert repeated_seed(7, 2) == int.from_bytes(digest[:4], "big") & 0x7FFFFFFF
    seeds = {repeated_seed(seed, repeat) for seed in range(50) for repeat in range(10)}
    assert len(seeds) == 500
    assert all(0 <= seed < 2**31 for seed in seeds)
