"""A site's folder becomes a `SiteData`; parts that do not belong together are refused with counts."""

import dataclasses

import numpy as np
import pytest

from fedecg.cohort import write_cohort
from fedecg.config import SignalSettings, StudySettings
from fedecg.errors import ClinicalInputError, CohortError, ModelError, TextError
from fedecg.signals import Recording, build_store
from fedecg.text import make_bank
from fedecg.training import SiteData, load_site_data
from fedecg.training.site_data import shuffled_targets


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
    assert "found signals of 256 samples (rhythm); expected 512 samples (rhythm)" in str(refusal.value)
    assert "[signals]" in refusal.value.fix


def test_strips_are_no_median_beats_of_the_same_length(site_folder, bank):
    beats = SignalSettings(input="median", rate_hz=200, samples=256)
    with pytest.raises(
        ModelError, match=r"FECG-327 .*256 samples \(rhythm\); expected 256 samples \(median\)"
    ):
        load_site_data(site_folder, StudySettings(signals=beats), bank)


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


def test_shuffled_targets_are_the_parts_own_rows_dealt_by_seed_and_site_alone(site_folder, bank, study):
    stated = load_site_data(site_folder, study(), bank)
    shuffled = study(align={"targets": "shuffled"})
    dealt = load_site_data(site_folder, shuffled, bank).targets
    again = load_site_data(site_folder, shuffled, bank).targets
    assert dealt.tolist() == again.tolist()
    for part in ("train", "validation", "test"):
        rows = stated.rows(part)
        assert sorted(dealt[rows].tolist()) == sorted(stated.targets[rows].tolist())


def test_shuffling_keeps_what_a_part_states_and_leaves_hardly_a_record_its_own():
    stated = np.eye(200, dtype=np.float32)
    part = np.array(["train"] * 150 + ["validation"] * 50)
    dealt = shuffled_targets(stated, part, 0, "north")
    assert stated.diagonal().all()  # what came in is left as it was
    assert (dealt.sum(axis=0) == 1).all()
    assert (dealt[:150, :150].sum(), dealt[150:, 150:].sum()) == (150, 50)
    assert dealt.diagonal().sum() < 10  # of a random order one on average keeps its place, in each part
    for other in (shuffled_targets(stated, part, 1, "north"), shuffled_targets(stated, part, 0, "south")):
        assert (other.argmax(axis=1) != dealt.argmax(axis=1)).mean() > 0.9


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ({"NORM": 100.0, "HOUSE": 100.0}, "FECG-245"),  # a code that the bank has no statement for
        ({"NORM": 100.5}, "FECG-226"),
        ({"NORM": -1.0}, "FECG-226"),
    ],
)
def test_a_site_with_a_code_or_a_likelihood_that_cannot_be_is_not_opened_at_all(
    site_folder, bank, study, codes, code
):
    import csv
    import io
    import json

    table = site_folder / "cohort.csv"
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    rows[3]["codes"] = json.dumps(codes)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    table.write_text(text.getvalue())
    with pytest.raises(ClinicalInputError) as refused:
        load_site_data(site_folder, study(), bank)
    assert refused.value.code == code
    assert "1 " in refused.value.found
    assert str(refused.value).count("HOUSE") == (code == "FECG-245")


def test_public_class_weights_come_with_the_data_and_only_where_asked_for(site_folder, bank_vectors, study):
    known = make_bank("two", ("NORM", "LVH"), bank_vectors, {})
    assert load_site_data(site_folder, study(), known).class_weights is None
    site = load_site_data(site_folder, study(align={"class-weights": "public"}), known)
    np.testing.assert_allclose(site.class_weights, [(2137 / 9528) ** 0.25, (9528 / 2137) ** 0.25], rtol=1e-6)
    foreign = make_bank("two", ("NORM", "HOUSE"), bank_vectors, {})
    (site_folder / "cohort.csv").write_text((site_folder / "cohort.csv").read_text().replace("LVH", "HOUSE"))
    with pytest.raises(TextError, match="FECG-270"):
        load_site_data(site_folder, study(align={"class-weights": "public"}), foreign)


def test_records_state_the_same_by_their_targets_or_by_their_report(make_site):
    site = make_site(range(4))
    site.targets[:] = [[1, 0], [1, 0], [0, 1], [0.5, 0.5]]
    assert site.state_the_same(np.arange(4)).tolist() == [
        [True, True, False, False],
        [True, True, False, False],
        [False, False, True, False],
        [False, False, False, True],
    ]  # fmt: skip
    told = dataclasses.replace(site, report=np.array([7, -1, -1, 7]))
    assert told.state_the_same(np.array([3, 2, 0])).tolist() == [
        [True, False, True], [False, True, False], [True, False, True],
    ]  # fmt: skip
