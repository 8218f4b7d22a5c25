"""A model's predictions are those of its training, with warnings and refusals."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import fedecg
from fedecg.cohort import Cohort
from fedecg.errors import ModelError, SignalError
from fedecg.signals import Recording, SignalStore
from fedecg.training import SiteData, log_hazards


@pytest.fixture(scope="module")
def model(model_folder: Path):
    return fedecg.load(model_folder)


@pytest.fixture(scope="module")
def trained(model, store: SignalStore, cohort: Cohort) -> np.ndarray:
    """Log hazards as the training-time evaluation of the same records gives them."""
    site = SiteData("site", cohort, store, np.zeros((len(cohort), 0), dtype=np.float32))
    return log_hazards(model.saved.network, site, np.arange(len(cohort)))


def test_predictions_are_those_of_the_training_time_evaluation(
    model, trained: np.ndarray, recordings: list[Recording]
) -> None:
    found = np.array([one.log_hazard for one in model.predict_many(recordings)])
    assert np.ptp(trained) > 1e-2  # the model tells them apart
    np.testing.assert_allclose(found, trained, atol=1e-5, rtol=0)


def test_the_quantisation_of_the_store_is_part_of_the_preprocessing(
    model, recordings: list[Recording], store: SignalStore
) -> None:
    for row in range(5):
        np.testing.assert_array_equal(
            model.prepare(recordings[row]).counts, np.rint(store.batch(np.array([row]))[0] * 1000)
        )


def test_one_alone_is_one_among_many(model, recordings: list[Recording]) -> None:
    alone, many = model.predict(recordings[3]), model.predict_many(recordings)[3]
    assert alone.log_hazard == pytest.approx(many.log_hazard, abs=1e-5)
    assert alone.risks[0].risk == pytest.approx(many.risks[0].risk, abs=1e-6)
    assert alone.percentile == pytest.approx(many.percentile, abs=1e-2)
    assert [risk.years for risk in alone.risks] == [1, 3, 5, 10]


def test_more_recordings_than_a_batch_keep_their_order(model, recordings: list[Recording]) -> None:
    twice = model.predict_many(recordings * 2)
    assert len(twice) == 2 * len(recordings) > 64
    first, second = (np.array([one.log_hazard for one in half]) for half in (twice[:40], twice[40:]))
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_faults_are_warnings_with_their_leads(model, recordings: list[Recording]) -> None:
    signal = recordings[0].signal_mv.copy()
    signal[8] = 0.25
    signal[10, :100] = np.nan
    (found,) = model.predict_many([Recording(signal, 500.0)])
    assert found.code == ""
    assert "flat: V3" in found.warnings
    assert "gaps: V5" in found.warnings


@pytest.mark.parametrize(("seconds", "words"), [(10.0, "the middle 2.6 s"), (2.0, None), (2.55, "")])
def test_a_length_other_than_the_networks_is_said(
    model, recordings: list[Recording], seconds: float, words: str | None
) -> None:
    cut = Recording(recordings[0].signal_mv[:, : int(seconds * 500)], 500.0)
    (found,) = model.predict_many([cut])
    assert found.code == ("FECG-213" if words is None else "")
    lengths = [text for text in found.warnings if text.startswith("lasts")]
    assert bool(lengths) == (words != "")
    assert words is None or all(words in text for text in lengths)


def test_a_refused_recording_has_its_code_among_many_and_raises_alone(
    model, recordings: list[Recording]
) -> None:
    flat = Recording(np.zeros((12, 5000), dtype=np.float32), 500.0)
    found = model.predict_many([recordings[0], flat, recordings[1]])
    assert [one.code for one in found] == ["", "FECG-214", ""]
    assert found[1].log_hazard is None
    assert found[1].risks == ()
    with pytest.raises(SignalError, match="FECG-214 recording: found more than half of the leads are flat"):
        model.predict(flat)


def test_nobody_is_nothing(model) -> None:
    assert model.predict_many([]) == []


def test_a_model_without_baseline_predicts_log_hazards_only(
    make_model: Callable[..., Path], recordings: list[Recording]
) -> None:
    found = fedecg.load(make_model(baseline=None, population=None)).predict(recordings[0])
    assert found.log_hazard is not None
    assert found.risks == ()
    assert found.percentile is None


def test_a_network_that_diverged_gives_a_code(
    make_model: Callable[..., Path], recordings: list[Recording]
) -> None:
    (found,) = fedecg.load(make_model(poison=float("nan"))).predict_many(recordings[:1])
    assert (found.code, found.log_hazard) == ("FECG-326", None)


def test_horizons_can_be_chosen_and_are_checked(model, recordings: list[Recording]) -> None:
    assert [one.years for one in model.predict(recordings[0], [0.5, 2]).risks] == [0.5, 2]
    with pytest.raises(ModelError, match="FECG-346"):
        model.predict(recordings[0], [2, 1])


def test_an_ecg_at_another_rate_gives_nearly_the_same(model, recordings: list[Recording]) -> None:
    half = Recording(recordings[0].signal_mv[:, ::2], 250.0)
    assert model.predict(half).log_hazard == pytest.approx(model.predict(recordings[0]).log_hazard, abs=0.02)


def test_prediction_leaves_torch_as_it_was(model, recordings: list[Recording]) -> None:
    model.predict(recordings[0])
    assert torch.is_grad_enabled()
    assert not model.saved.network.training
