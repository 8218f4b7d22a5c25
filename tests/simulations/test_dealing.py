"""Patients dealt to sites whose sizes are said: both margins hold, skew is where it was asked for and nowhere else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedecg.config import PartitionSettings, StudySettings, parse_settings
from fedecg.errors import SettingsError
from fedecg_simulations.dealing import dealt, site_sizes, table_with_margins


def labels_of(counts: dict[str, int]) -> np.ndarray:
    return np.repeat(list(counts), list(counts.values()))


def table_of(labels: np.ndarray, site: np.ndarray, sites: int) -> np.ndarray:
    return np.array(
        [[np.sum((site == row) & (labels == name)) for name in np.unique(labels)] for row in range(sites)]
    )


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 40),
    st.lists(st.integers(1, 60), min_size=1, max_size=6),
    st.floats(0.01, 100),
    st.sampled_from(["equal", "power-law"]),
    st.integers(0, 2**31 - 1),
)
def test_both_margins_of_the_table_hold_whatever_is_drawn(
    sites: int, counts: list[int], alpha: float, sizes: str, seed: int
) -> None:
    total = sum(counts)
    sites = min(sites, total)
    chosen = PartitionSettings.model_validate(
        {"by": "dirichlet", "sites": sites, "alpha": alpha, "sizes": sizes}
    )
    labels = labels_of({f"label {number}": count for number, count in enumerate(counts)})
    table = table_of(labels, dealt(labels, chosen, np.random.default_rng(seed)), sites)
    wanted = site_sizes(total, chosen, np.random.default_rng(seed))
    assert table.sum(axis=0).tolist() == counts
    assert table.sum(axis=1).tolist() == wanted.tolist()


def test_a_table_that_is_whole_and_fits_comes_back_as_it_is() -> None:
    table = np.array([[3, 1, 2], [1, 4, 5]])
    again = table_with_margins(table.astype(float), table.sum(axis=1), table.sum(axis=0))
    assert again.tolist() == table.tolist()


def test_fitting_keeps_the_odds_of_the_wish() -> None:
    wish = np.array([[8.0, 1.0], [1.0, 1.0]])
    table = table_with_margins(wish, np.array([5000, 5000]), np.array([6000, 4000]))
    odds = table[0, 0] * table[1, 1] / (table[0, 1] * table[1, 0])
    assert odds == pytest.approx(8.0, rel=0.01)
    assert table.sum(axis=0).tolist() == [6000, 4000]


def test_power_law_sizes_fall_as_the_exponent_says_and_ranks_are_drawn() -> None:
    chosen = PartitionSettings(by="quantity", sites=8, sizes="power-law", exponent=2.0)
    sizes = site_sizes(100_000, chosen, np.random.default_rng(3))
    ranked = np.sort(sizes)[::-1]
    assert ranked[0] / ranked[3] == pytest.approx(16, rel=0.01)
    assert sizes.tolist() != ranked.tolist()
    assert sizes.sum() == 100_000


def test_every_site_gets_somebody_however_steep_the_power_law() -> None:
    chosen = PartitionSettings(by="quantity", sites=50, sizes="power-law", exponent=5.0)
    site = dealt(labels_of({"all": 60}), chosen, np.random.default_rng(0))
    assert np.bincount(site, minlength=50).min() == 1


def test_event_rates_are_skewed_while_sizes_are_equal() -> None:
    labels = labels_of({"censored": 3600, "event": 400})
    chosen = PartitionSettings(by="dirichlet", sites=10, label="event", alpha=0.3, sizes="equal")
    site = dealt(labels, chosen, np.random.default_rng(5))
    rate = np.array([np.mean(labels[site == number] == "event") for number in range(10)])
    assert np.bincount(site).tolist() == [400] * 10
    assert np.ptp(rate) > 0.2
    even = chosen.model_copy(update={"alpha": 1e4})
    site = dealt(labels, even, np.random.default_rng(5))
    assert np.ptp([np.mean(labels[site == number] == "event") for number in range(10)]) < 0.02


@pytest.mark.parametrize(
    ("partition", "message"),
    [
        ({"by": "column", "sizes": "equal"}, 'sizes = "drawn" with by = "column"'),
        ({"by": "quantity", "sizes": "equal"}, 'sizes = "drawn" or "power-law" with by = "quantity"'),
    ],
)
def test_sizes_that_contradict_the_way_of_dealing_are_refused(
    partition: dict[str, str], message: str
) -> None:
    with pytest.raises(SettingsError, match=f"FECG-103.*(?s:.)*{message}"):
        parse_settings(StudySettings, {"partition": partition})
