"""What the report says of a study, honest where there is nothing to be proud of."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedecg.report.findings import (
    COLUMNS,
    comparison_rows,
    is_simulated,
    notes,
    result_sentence,
    validation_points,
)

Summary = dict[str, Any]


def _gap(summary: Summary, value: float, low: float, high: float) -> None:
    summary["differences"]["federated-minus-local-mean"] = {
        "difference": value,
        "ci-low": low,
        "ci-high": high,
        "share-below-zero": 0.2,
    }


def test_a_good_result_states_share_gap_interval_and_verdict(summary: Summary) -> None:
    # (0.712 - 0.5) / (0.724 - 0.5) = 0.946
    assert result_sentence(summary) == (
        "Federated training kept 95 % of pooled training's gain over chance and was 0.100 above the mean local "
        "model (95 % CI +0.071 to +0.128). On this test part, training together beat the average of training alone."
    )


def test_more_than_pooled_is_reached_not_kept(summary: Summary) -> None:
    summary["columns"]["federated"]["c-index-stratified"] = 0.74
    assert "Federated training reached 107 % of pooled" in result_sentence(summary)


def test_an_interval_across_zero_settles_nothing(summary: Summary) -> None:
    _gap(summary, 0.012, -0.01, 0.03)
    sentence = result_sentence(summary)
    assert "0.012 above the mean local model (95 % CI −0.010 to +0.030)" in sentence
    assert "does not settle whether it beats training alone" in sentence


def test_worse_than_local_is_said(summary: Summary) -> None:
    _gap(summary, -0.05, -0.08, -0.02)
    sentence = result_sentence(summary)
    assert "was 0.050 below the mean local model (95 % CI −0.080 to −0.020)" in sentence
    assert sentence.endswith("training alone did better.")


def test_no_difference_is_level(summary: Summary) -> None:
    _gap(summary, 0.0001, -0.02, 0.02)
    assert "was level with the mean local model (95 % CI" in result_sentence(summary)


def test_a_model_at_chance_is_never_called_worth_it(summary: Summary) -> None:
    summary["columns"]["federated"]["c-index-stratified"] = 0.487
    _gap(summary, 0.03, 0.01, 0.05)
    sentence = result_sentence(summary)
    assert sentence.startswith("Federated training did not beat chance (stratified C-index 0.487)")
    assert "beat training alone" not in sentence


def test_pooled_at_chance_has_no_gain_to_keep(summary: Summary) -> None:
    summary["columns"]["pooled"]["c-index-stratified"] = 0.49
    assert "C-index of 0.712 (pooled training did not beat chance (0.490))" in result_sentence(summary)
    assert {row.share_kept for row in comparison_rows(summary)} == {None}


def test_a_run_that_left_sites_out_shows_it_below_the_federated_model(summary: Summary) -> None:
    assert "unseen-site" not in [row.key for row in comparison_rows(summary)]
    summary["columns"]["unseen-site"] = {**summary["columns"]["federated"], "c-index": None}
    rows = comparison_rows(summary)
    at = [row.key for row in rows].index("federated")
    assert (rows[at + 1].key, rows[at + 1].label) == ("unseen-site", "unseen site")
    assert rows[at + 1].overall.value is None


def test_pooled_whose_interval_includes_chance_has_no_gain_to_keep(summary: Summary) -> None:
    summary["columns"]["pooled"]["stratified-ci-low"] = 0.49
    assert {row.share_kept for row in comparison_rows(summary)} == {None}


def test_without_pooled_and_local_columns_the_sentence_says_so(summary: Summary) -> None:
    summary["columns"].update({"pooled": None, "local-mean": None})
    summary["differences"] = None
    assert result_sentence(summary) == (
        "Federated training reached a stratified C-index of 0.712 (there is no pooled model to compare with); "
        "there are no local models to compare with."
    )


def test_without_a_bootstrap_the_gap_comes_from_the_columns(summary: Summary) -> None:
    summary["differences"] = {}
    sentence = result_sentence(summary)
    assert sentence.endswith("was 0.100 above the mean local model.")


def test_without_a_federated_model_nothing_is_claimed(summary: Summary) -> None:
    summary["columns"]["federated"] = None
    assert result_sentence(summary).startswith("No federated model was scored")


def test_rows_keep_their_order_and_stay_when_null(summary: Summary) -> None:
    summary["columns"]["pooled"] = None
    del summary["columns"]["site-only"]
    rows = comparison_rows(summary)
    assert [row.key for row in rows] == list(COLUMNS)
    assert rows[1].stratified.value is None
    assert rows[-1].overall.high is None


def test_notes_give_counts_differences_and_the_estimate_from_sums(summary: Summary) -> None:
    text = "\n".join(notes(summary))
    assert "4,100 patients, 312 events, 1,181,204 comparable pairs, 203,111 of them within a site" in text
    assert "Federated minus pooled: −0.012 (95 % CI −0.026 to +0.003); below zero in 94 %" in text
    assert "Federated minus local mean: +0.100 (95 % CI +0.071 to +0.128); below zero in 0 %" in text
    assert "guaranteed to lie in 0.719–0.724; 0.722 from raw predictions." in text
    assert "Too few events" not in text


def test_notes_do_without_what_a_deployment_lacks(summary: Summary) -> None:
    summary["federated-c-index"].update({"pooled-reference": None, "few-events": True})
    summary["differences"] = None
    text = "\n".join(notes(summary))
    assert "raw predictions" not in text
    assert "Federated minus pooled: –." in text
    assert "Too few events" in text
    summary["federated-c-index"] = None
    assert "from sums alone" not in "\n".join(notes(summary))


@pytest.mark.parametrize("outcomes", ["simulated", None, "Observed"])
def test_only_the_word_observed_takes_the_label_off(outcomes: str | None) -> None:
    assert is_simulated({"outcomes": outcomes})
    assert not is_simulated({"outcomes": "observed"})


c_indices = st.none() | st.just(math.nan) | st.floats(0, 1)


@given(federated=c_indices, pooled=c_indices, local=c_indices, low=c_indices, high=c_indices)
def test_every_study_gets_a_sentence(
    federated: float | None, pooled: float | None, local: float | None, low: float | None, high: float | None
) -> None:
    columns = {"federated": federated, "pooled": pooled, "local-mean": local}
    gap = {"difference": None, "ci-low": low, "ci-high": high}
    summary = {
        "columns": {key: {"c-index-stratified": value} for key, value in columns.items()},
        "differences": {"federated-minus-local-mean": gap},
    }
    assert result_sentence(summary).endswith(".")
    assert all("nan" not in text.split() for text in (result_sentence(summary), *notes(summary)))


def test_differences_beyond_the_two_are_told_where_they_were_made(summary: Summary) -> None:
    gap = {"difference": 0.08, "ci-low": 0.05, "ci-high": 0.11, "p-value": 0.0004, "replicates": 1000}
    summary["differences"]["federated-minus-age-sex"] = gap
    summary["differences"]["federated-minus-local-mean"] = gap | {"p-value": 0.0312}
    text = "\n".join(notes(summary))
    assert "Federated minus local mean: +0.080 (95 % CI +0.050 to +0.110); p = 0.031." in text
    assert "Federated minus age + sex: +0.080 (95 % CI +0.050 to +0.110); p < 0.001." in text
    assert "local best" not in text


def test_a_partial_run_is_called_partial(summary: Summary) -> None:
    assert "Status" not in "\n".join(notes(summary | {"status": "completed"}))
    text = "\n".join(notes(summary | {"status": "completed-partial"}))
    assert "Status: completed-partial; in some rounds not every site's reply was used." in text


def test_validation_speaks_of_the_weights_that_were_sent_and_the_last_word_counts() -> None:
    def entry(number: int, trained: int | None, c: float) -> dict[str, Any]:
        validation = {"stratified": c}
        return {"stage": "survival", "round": number, "weights-evaluated": trained, "validation": validation}

    rounds = [entry(1, 0, 0.5), entry(2, 1, 0.6), entry(2, 1, 0.61), {"stage": "align", "round": 1}]
    points = validation_points(rounds)
    assert {trained: point["stratified"] for trained, point in points.items()} == {0: 0.5, 1: 0.61}
    assert list(validation_points([entry(4, None, 0.5)])) == [4]


def test_no_share_is_given_of_a_gain_that_is_not_clearly_there(summary: Summary) -> None:
    summary["columns"]["pooled"]["stratified-ci-low"] = 0.45
    sentence = result_sentence(summary)
    assert "is not clearly above chance" in sentence
    assert "%" not in sentence.split(" and was ")[0]


def _best_gap(summary: Summary, value: float, low: float, high: float) -> str:
    entry = {"difference": value, "ci-low": low, "ci-high": high}
    summary["differences"]["federated-minus-local-best"] = entry
    return result_sentence(summary)


def test_a_best_local_model_that_is_not_clearly_below_is_told_with_the_result(summary: Summary) -> None:
    assert _best_gap(summary, -0.004, -0.016, 0.008).endswith(
        "beat the average of training alone. The best local model was not clearly below it (federated minus local best "
        "−0.004 (95 % CI −0.016 to +0.008))."
    )
    assert "The best local model did better (federated" in _best_gap(summary, -0.03, -0.05, -0.01)
    assert "best local" not in _best_gap(summary, 0.03, 0.01, 0.05)


def test_without_a_paired_difference_the_best_local_model_is_compared_by_its_c(summary: Summary) -> None:
    summary["columns"]["local-best"]["c-index-stratified"] = 0.72
    assert result_sentence(summary).endswith("The best local model, 0.720, was not below it.")
    summary["columns"]["local-best"] = None
    assert "best local" not in result_sentence(summary)
