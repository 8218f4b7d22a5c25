"""A site's folder becomes a `SiteData`; parts that do not belong together are refused with counts."""

import numpy as np
import pytest

from fedecg.cohort import write_cohort
from fedecg.config import SignalSettings, StudySettings
from fedecg.errors import CohortError, ModelError
from fedecg.signals import Recording, build_store
from fedecg.text import make_bank
from fedecg.training import SiteData, load_site_data


@pytest.fixture
def bank(bank_vectors):
    return make_bank("two", ("NORM", "LVH"), bank_vectors, {})


@pytest.fixture
def site_folder(tmp_path, store, cohort):
    """Six records; a relative path to the table, an absolute one to the store."""
    at = np.array([10, 3, 7, 20, 21, 22])
    part = np.array(["train", "test", "train", "validation", "test", "train"])
    codes = ({"LVH": 100.0}, {}, {"NORM": 0.0}, {"NORM": 50.0, "LVH": 50.0}, {}, {})
    table = cohort.select(at)
    write_cohort(type(table)(**{**table.__dict__, "part": part, "codes": codes}), tmp_path / "cohort.csv")
    (tmp_path / "site.toml").write_text(f'name = "north"\nstore = "{store.folder}"\ncohort = "cohort.csv"\n')
    return tmp_path


def test_a_site_folder_is_opened_as_site_toml_says(site_folder, store, cohort, bank, study):
    site = load_site_data(site_folder, study(), bank)
    assert site.name == "north"
    assert site.rows("train").tolist() == [0, 2, 5]
    assert site.rows("validation").tolist() == [3]
    assert site.rows("nobody").tolist() == []
    signals = site.signals(np.array([2, 0])).numpy()
    np.testing.assert_array_equal(signals, store.batch(np.array([7, 10])))
    assert signals.dtype == np.float32
    assert site.events(np.array([1])).tolist() == [cohort.event[3]]
    assert site.follow_up_days(np.array([1])).tolist() == [cohort.follow_up_days[3]]
    assert site.targets.tolist() == [[0, 1], [0, 0], [1, 0], [0.5, 0.5], [0, 0], [0, 0]]


def test_likelihood_zero_follows_the_study(site_folder, bank, study):
    site = load_site_data(site_folder, study(align={"likelihood-zero": "paper"}), bank)
    assert site.targets[2].tolist() == [0, 0]


def test_a_store_of_another_length_is_refused(site_folder, bank):
    with pytest.raises(ModelError) as refusal:
        load_site_data(site_folder, StudySettings(signals=SignalSettings(samples=512)), bank)
    assert refusal.value.code == "FECG-327"
    assert "found signals of 256 samples; expected 512 samples" in str(refusal.value)
    assert "[signals]" in refusal.value.fix


def test_records_that_the_store_lacks_are_refused(make_site):
    with pytest.raises(CohortError) as refusal:
        make_site([0, 1, 2], record=np.array([0, 240, -1]))
    assert refusal.value.code == "FECG-232"
    assert "2 of 3 records that are not in the signal store" in str(refusal.value)
    assert "rows of the store, which has 240" in str(refusal.value)
    assert "make both again" in refusal.value.fix


def test_records_that_quality_rules_refused_are_refused(tmp_path, cohort):
    flat = Recording(np.zeros((12, 500), dtype=np.float32), 100.0)
    wave = np.sin(np.arange(500) / 5).astype(np.float32)
    good = Recording(np.tile(wave, (12, 1)), 100.0)
    store = build_store(tmp_path, "f" * 64, SignalSettings(samples=256), [good, flat, flat], powerline="none")
    with pytest.raises(CohortError) as refusal:
        SiteData("site", cohort.select(np.arange(3)), store, np.zeros((3, 2), dtype=np.float32))
    assert refusal.value.code == "FECG-233"
    assert "2 of 3 records that the store's quality rules refused" in str(refusal.value)
    assert "manifest" in refusal.value.fix


def test_targets_of_another_number_are_refused(store, cohort):
    with pytest.raises(ModelError) as refusal:
        SiteData("site", cohort, store, np.zeros((3, 2), dtype=np.float32))
    assert refusal.value.code == "FECG-328"
    assert "3 rows for 240 records" in str(refusal.value)
