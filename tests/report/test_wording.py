"""Numbers and names as printed."""

import math

import pytest

from fedecg.report import wording


@pytest.mark.parametrize("unknown", [None, math.nan, math.inf, -math.inf])
def test_what_is_not_known_is_a_dash(unknown: float | None) -> None:
    forms = (wording.c_index, wording.difference, wording.percent, wording.count, wording.byte_size)
    assert [form(unknown) for form in (*forms, wording.duration)] == ["–"] * 6
    assert [form(unknown) for form in (wording.risk, wording.ratio, wording.years)] == ["–"] * 3
    assert (wording.decimal(unknown, 2), wording.p_value(unknown)) == ("–", "p –")


def test_a_c_index_has_its_interval_only_when_both_ends_are_known() -> None:
    assert wording.c_index(0.7424, 0.7191, 0.7649) == "0.742 (0.719–0.765)"
    assert wording.c_index(0.7424, None, 0.7649) == "0.742"


def test_differences_are_signed_except_what_prints_as_zero() -> None:
    assert wording.difference(0.0412, 0.0221, 0.06) == "+0.041 (95 % CI +0.022 to +0.060)"
    assert wording.difference(-0.0412, -0.09, 0.0004) == "−0.041 (95 % CI −0.090 to 0.000)"
    assert wording.difference(-0.0004) == "0.000"


def test_shares_in_percent_do_not_round_a_little_down_to_nothing() -> None:
    texts = [wording.percent(share) for share in (0.943, 1.231, 0.0, 0.001, -0.12, -0.001)]
    assert texts == ["94 %", "123 %", "0 %", "<1 %", "−12 %", "0 %"]


def test_risks_ratios_and_scores_have_their_digits() -> None:
    assert [wording.risk(share) for share in (0.0573, 0.0, 0.0004, 1.0)] == [
        "5.7 %",
        "0.0 %",
        "<0.1 %",
        "100.0 %",
    ]
    assert wording.ratio(0.954, 0.8531, 1.0667) == "0.95 (0.85–1.07)"
    assert wording.ratio(0.954, None, 1.0667) == "0.95"
    assert [wording.decimal(value, 3) for value in (-0.0121, -0.0004, 1234.5)] == [
        "−0.012",
        "0.000",
        "1,234.500",
    ]


def test_p_values_and_horizons_are_as_short_as_can_be() -> None:
    assert [wording.p_value(p) for p in (0.0004, 0.001, 0.24)] == ["p < 0.001", "p = 0.001", "p = 0.240"]
    assert [wording.years(days) for days in (365.25, 547.875, 3652.5)] == ["1", "1.5", "10"]


def test_sizes_and_times_choose_their_unit() -> None:
    sizes = [wording.byte_size(size) for size in (12, 4_000, 5_140_000.0, 2.5e9)]
    assert sizes == ["12 B", "4.0 kB", "5.1 MB", "2.5 GB"]
    times = [wording.duration(time) for time in (8.31, 99.94, 99.96, 125, 4_800)]
    assert times == ["8.3 s", "99.9 s", "1 min 40 s", "2 min 5 s", "1 h 20 min"]


def test_a_label_mix_takes_counts_or_shares_and_leaves_out_what_is_absent() -> None:
    assert wording.label_mix({"MI": 20, "NORM": 60, "HYP": 20, "CD": 0}) == "NORM 60, HYP 20, MI 20"
    assert wording.label_mix({"MI": 0.25, "NORM": 0.75}) == "NORM 75, MI 25"
    assert wording.label_mix({"MI": 0}) == "–"


def test_control_characters_never_reach_a_terminal() -> None:
    assert wording.printable("a\x1b[31mb\nc\u202ed") == "a?[31mb?c?d"
