"""The consortium: what a site holds depends on seed, name and part alone; codes and reports fit the findings."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedecg.errors import SettingsError
from fedecg_simulations.synthetic import (
    DEFAULT_SITES,
    SITE_PROFILES,
    Patients,
    consortium,
    make_patients,
    make_recordings,
)
from fedecg_simulations.synthetic.consortium import share_out
from fedecg_simulations.synthetic.statements import SENTENCES

SEED = 100
SIZES = {"university": 60, "coast": 40, "rural": 20}


def same(one: Patients, other: Patients, n: int | None = None) -> bool:
    """Whether two sites hold the same first n patients (parts aside, which depend on n)."""
    rows = slice(n)
    return (
        one.codes[rows] == other.codes[rows]
        and one.reports[rows] == other.reports[rows]
        and all(
            np.array_equal(getattr(one, name)[rows], getattr(other, name)[rows])
            for name in ("age_years", "female", "event", "follow_up_days", "true_log_hazard")
        )
        and all(
            np.array_equal(one.features[name][rows], other.features[name][rows], equal_nan=True)
            for name in one.features
        )
    )


def test_two_draws_are_bit_equal() -> None:
    one, other = make_patients("city", 50, SEED), make_patients("city", 50, SEED)
    assert same(one, other)
    assert np.array_equal(one.part, other.part)
    assert np.array_equal(make_recordings(one, range(5)), make_recordings(other, range(5)))


def test_the_order_and_the_number_of_sites_change_nothing() -> None:
    forward = {name: (train, test) for name, train, test in consortium(SIZES, 30, SEED)}
    backward = {
        name: (train, test) for name, train, test in consortium(dict(reversed(SIZES.items())), 30, SEED)
    }
    alone = {name: (train, test) for name, train, test in consortium({"coast": 40}, 30, SEED)}
    assert forward.keys() == backward.keys() == SIZES.keys()
    for name in SIZES:
        for one, other in zip(forward[name], backward[name], strict=True):
            assert same(one, other)
            assert np.array_equal(make_recordings(one, [3, 1]), make_recordings(other, [3, 1]))
    assert same(forward["coast"][0], alone["coast"][0])


def test_a_patient_and_the_recording_do_not_depend_on_how_many_there_are() -> None:
    few, many = make_patients("valley", 10, SEED), make_patients("valley", 200, SEED)
    assert same(few, many, 10)
    assert np.array_equal(make_recordings(few, [7]), make_recordings(many, [2, 7])[1:])


def test_seed_site_and_part_each_change_the_patients() -> None:
    base = make_patients("city", 20, SEED)
    for other in (
        make_patients("city", 20, SEED + 1),
        make_patients("university", 20, SEED),
        make_patients("city", 20, SEED, "test"),
    ):
        assert not np.array_equal(base.age_years, other.age_years)
        assert not np.intersect1d(base.true_log_hazard, other.true_log_hazard).size


def test_no_patient_is_in_two_parts_and_events_are_spread_evenly() -> None:
    patients = make_patients("university", 1000, SEED)
    validation = patients.part == "validation"
    assert set(patients.part) == {"train", "validation"}
    assert validation.sum() == pytest.approx(200, abs=1)
    assert patients.event[validation].sum() == pytest.approx(patients.event.sum() / 5, abs=1)
    assert set(make_patients("university", 50, SEED, "test").part) == {"test"}


def test_a_site_with_one_patient_or_with_none_is_made() -> None:
    assert make_patients("rural", 1, SEED).part.tolist() == ["train"]
    nobody = make_patients("rural", 0, SEED, "test")
    assert len(nobody) == 0
    assert nobody.part.shape == (0,)


def test_recordings_have_the_sites_rate_ten_seconds_and_twelve_finite_leads() -> None:
    for name, profile in SITE_PROFILES.items():
        patients = make_patients(name, 3, SEED)
        signal = make_recordings(patients, [0, 2])
        assert signal.shape == (2, 12, round(10 * profile.rate_hz))
        assert signal.dtype == np.float32
        assert np.isfinite(signal).all()
        assert 0.2 < np.ptp(signal, axis=-1).max() < 15.0
        assert patients.rate_hz == profile.rate_hz
        assert np.array_equal(make_recordings(patients, [2])[0], signal[1])


def test_hum_stands_at_the_sites_mains_frequency() -> None:
    for name, other_hz in (("university", 60.0), ("city", 50.0)):
        patients = make_patients(name, 20, SEED)
        power = np.abs(np.fft.rfft(make_recordings(patients, range(20)), axis=-1)) ** 2
        power = np.median(power, axis=(0, 1))  # 0.1 Hz a bin
        assert power[round(SITE_PROFILES[name].powerline_hz * 10)] > 5 * power[round(other_hz * 10)]


def test_noise_is_small_against_the_heart() -> None:
    patients = make_patients("rural", 40, SEED)
    signal = make_recordings(patients, range(40))
    rough = np.diff(signal, axis=-1)
    noise_mv = np.median(np.abs(rough), axis=-1).max(axis=1)
    assert np.median(noise_mv) < 0.04
    assert np.median(np.ptp(signal, axis=-1).max(axis=1)) > 1.5


def test_an_unknown_site_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        SettingsError, match=r"FECG-611 data\.sites: found no profile named 'moon'; expected one of "
    ):
        make_patients("moon", 5, SEED)
    with pytest.raises(
        SettingsError, match=r"university, city, coast, valley, cardiac, rural.*Rename the key"
    ):
        next(consortium({"moon": 5}, 5, SEED))


@given(
    st.dictionaries(st.text(min_size=1), st.integers(1, 5000), min_size=1, max_size=8), st.integers(0, 9000)
)
def test_shares_add_up_and_every_site_has_one(sizes: dict[str, int], total: int) -> None:
    shares = share_out(total, sizes)
    assert sum(shares.values()) == total
    assert total < len(sizes) or min(shares.values()) >= 1
    assert shares == share_out(total, dict(reversed(sizes.items())))
    for name, size in sizes.items():
        assert abs(shares[name] - total * size / sum(sizes.values())) <= len(sizes) + 1


def test_codes_are_codes_of_ptbxl_with_its_likelihoods(data_root: Path) -> None:
    with (data_root / "ptbxl" / "scp_statements.csv").open(newline="") as file:
        rows = {row[""]: row for row in csv.DictReader(file)}
    assert rows.keys() >= SENTENCES.keys()
    for code in (
        code for _, train, _ in consortium(SIZES, 0, SEED) for row in train.codes for code in row.items()
    ):
        diagnostic = rows[code[0]]["diagnostic"] != ""
        assert (code[1] in (50.0, 80.0, 100.0)) == diagnostic
        assert diagnostic or code[1] == 0.0


def test_every_patient_has_one_rhythm_and_a_report_of_the_same_findings() -> None:
    patients = make_patients("cardiac", 400, SEED)
    rhythms = {"SR", "AFIB", "STACH", "SBRAD", "SARRH"}
    for i, (codes, report) in enumerate(zip(patients.codes, patients.reports, strict=True)):
        assert len(rhythms & codes.keys()) == 1
        assert ("AFIB" in codes) == patients.findings["af"][i]
        assert report.count(". ") == len(codes) - 1
        assert all(SENTENCES[code] in report for code in codes)
        assert "NORM" not in codes or codes.keys() <= rhythms | {"NORM"}


def test_statements_follow_thresholds_and_few_are_missed() -> None:
    patients = make_patients("university", 3000, SEED)
    feature, found = patients.features, patients.findings
    expected = {
        "CLBBB": found["lbbb"],
        "CRBBB": found["rbbb"],
        "ASMI": found["ami"],
        "STACH": ~found["af"] & (feature["heart_rate_bpm"] > 100.0),
        "1AVB": feature["pr_ms"] >= 200.0,
        "IVCD": ~(found["lbbb"] | found["rbbb"]) & (feature["qrs_ms"] >= 120.0),
        "LVH": ~found["lbbb"] & (feature["voltage_mv"] >= 3.5),
        "ISC_": ~found["lbbb"] & (feature["t_v5_mv"] <= 0.02),
    }
    for code, true in expected.items():
        stated = np.array([code in codes for codes in patients.codes])
        assert not (stated & ~true).any()
        assert stated[true].mean() > 0.85


def test_a_doubtful_finding_is_called_possible() -> None:
    patients = make_patients("university", 3000, SEED)
    doubtful = [
        report
        for codes, report in zip(patients.codes, patients.reports, strict=True)
        if codes.get("LVH") == 50.0
    ]
    assert doubtful
    assert all("possible left ventricular hypertrophy" in report for report in doubtful)


def test_the_default_sites_are_profiles_of_unequal_size() -> None:
    assert DEFAULT_SITES.keys() == SITE_PROFILES.keys()
    assert len(set(DEFAULT_SITES.values())) == len(DEFAULT_SITES)
