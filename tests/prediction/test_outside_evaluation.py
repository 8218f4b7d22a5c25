"""An outside hospital evaluates a finished model and recalibrates it in the large."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import fedecg
from fedecg.cli import main
from fedecg.cohort import Cohort
from fedecg.config import EvaluationSettings, SignalSettings
from fedecg.errors import CohortError, ModelError
from fedecg.evaluation import concordance_interval
from fedecg.model import BaselineFile
from fedecg.model.package import EXPLANATION, write_sums
from fedecg.prediction.outside import OutsideEvaluation, evaluate_outside, recalibrate
from fedecg.signals import Recording, SignalStore, build_store
from fedecg.training import SiteData, log_hazards

MakeSite = Callable[..., Path]


@pytest.fixture(scope="module")
def model(model_folder: Path):
    return fedecg.load(model_folder)


@pytest.fixture
def evaluation(model, make_site: MakeSite) -> OutsideEvaluation:
    return evaluate_outside(model, make_site())


def test_figures_are_those_of_the_patients_arrays(
    model, evaluation: OutsideEvaluation, store: SignalStore, cohort: Cohort
) -> None:
    site = SiteData("site", cohort, store, np.zeros((len(cohort), 0), dtype=np.float32))
    eta = log_hazards(model.saved.network, site, np.arange(len(cohort)))
    direct = concordance_interval(cohort.follow_up_days, cohort.event, eta)
    own = evaluation.document["concordance"]
    assert own["stratified"] == pytest.approx(direct.c_index, abs=1e-12)
    assert own["comparable-within"] == direct.comparable
    hazard = model.scale.hazard.at(cohort.follow_up_days)
    assert evaluation.observed == int(cohort.event.sum())
    assert evaluation.expected == pytest.approx(float(np.exp(eta) @ hazard))
    assert evaluation.site == "our-hospital"
    json.dumps(evaluation.document, allow_nan=False)


def test_horizons_beyond_the_baseline_are_left_out_and_said(evaluation: OutsideEvaluation) -> None:
    years = [days / 365.25 for days in evaluation.document["horizons-days"]]
    assert years == [1, 3]
    assert evaluation.notes[1:] == ("No figures at 5, 10 years: beyond the model's baseline hazard.",)


def test_a_part_is_evaluated_alone(model, make_site: MakeSite) -> None:
    assert evaluate_outside(model, make_site(), "test").document["concordance"]["patients"] == 20


def test_after_recalibration_as_many_events_are_expected_as_observed(
    model, evaluation: OutsideEvaluation, make_site: MakeSite, tmp_path: Path
) -> None:
    ratio = recalibrate(model, evaluation, tmp_path / "own")
    assert ratio == pytest.approx(evaluation.observed / evaluation.expected)
    own = fedecg.load(tmp_path / "own")
    again = evaluate_outside(own, make_site())
    assert again.expected == pytest.approx(again.observed)
    assert again.document["concordance"] == evaluation.document["concordance"]
    assert own.saved.recalibration.original_sha256 == model.saved.settings_sha256
    assert own.saved.weights_sha256 == model.saved.weights_sha256
    assert own.saved.population == model.saved.population
    assert model.saved.recalibration is None


def test_the_variance_after_recalibration_worked_by_hand(
    model, evaluation: OutsideEvaluation, tmp_path: Path
) -> None:
    ratio = recalibrate(model, evaluation, tmp_path / "own")
    own, before = fedecg.load(tmp_path / "own").saved.baseline, model.saved.baseline
    assert own.cumulative_hazard[2] == pytest.approx(ratio * before.cumulative_hazard[2])
    expected = ratio**2 * (before.variance[2] + before.cumulative_hazard[2] ** 2 / evaluation.observed)
    assert own.variance[2] == pytest.approx(expected)


def test_the_original_is_never_replaced(model, model_folder: Path, evaluation: OutsideEvaluation) -> None:
    before = (model_folder / "model.json").read_bytes()
    with pytest.raises(ModelError, match="FECG-352 --recalibrate: found the folder of the model itself"):
        recalibrate(model, evaluation, model_folder)
    assert (model_folder / "model.json").read_bytes() == before


def test_without_events_there_is_nothing_to_recalibrate_with(
    model, make_site: MakeSite, cohort: Cohort, tmp_path: Path
) -> None:
    nobody = evaluate_outside(model, make_site(event=np.zeros(len(cohort), dtype=np.bool_)))
    assert nobody.document["concordance"]["stratified"] is None
    with pytest.raises(ModelError, match="FECG-351 recalibration: found no event observed"):
        recalibrate(model, nobody, tmp_path / "own")


def test_a_model_without_baseline_cannot_be_evaluated(
    make_model: Callable[..., Path], make_site: MakeSite
) -> None:
    aligned = fedecg.load(make_model(baseline=None, population=None))
    with pytest.raises(ModelError, match="FECG-347 baseline hazard of the model: found none"):
        evaluate_outside(aligned, make_site())


def test_a_baseline_shorter_than_every_horizon_cannot_be_evaluated(
    make_model: Callable[..., Path], make_site: MakeSite
) -> None:
    brief = BaselineFile(edges_days=[0.0, 90.0], cumulative_hazard=[0.0, 0.1], variance=[0.0, 0.01])
    with pytest.raises(ModelError, match="FECG-347 .* found one that ends at 0.2 years; .* 1 years"):
        evaluate_outside(fedecg.load(make_model(baseline=brief)), make_site())


def test_a_store_of_other_signals_is_refused(
    model, recordings: list[Recording], cohort: Cohort, make_site: MakeSite, tmp_path: Path
) -> None:
    other = SignalSettings(samples=256, highpass_hz=1.0)
    store = build_store(tmp_path / "other", "q" * 64, other, recordings, powerline="50")
    with pytest.raises(ModelError, match="FECG-350 signal store: found 1 setting.s. other .*: highpass-hz"):
        evaluate_outside(model, make_site(store))


def test_another_notch_is_the_sites_own_choice(
    model, recordings: list[Recording], make_site: MakeSite, tmp_path: Path
) -> None:
    store = build_store(tmp_path / "other", "q" * 64, model.signals, recordings, powerline="50")
    assert evaluate_outside(model, make_site(store)).observed > 0


def test_an_empty_part_is_refused(model, make_site: MakeSite) -> None:
    with pytest.raises(CohortError, match="FECG-266 patients to evaluate: found 0 of 40 rows"):
        evaluate_outside(model, make_site(), "validation")


def test_a_patient_with_several_records_is_refused(model, make_site: MakeSite, cohort: Cohort) -> None:
    patient, part = cohort.patient.copy(), cohort.part.copy()
    patient[2], part[:] = patient[0], "test"
    with pytest.raises(CohortError, match="FECG-267 records to evaluate: found 1 of 40"):
        evaluate_outside(model, make_site(patient=patient, part=part))


def test_late_entries_are_said(model, make_site: MakeSite, cohort: Cohort) -> None:
    entry = np.where(np.arange(len(cohort)) < 4, 50.0, 0.0)
    notes = evaluate_outside(model, make_site(entry_days=entry)).notes
    assert notes[-1].startswith("4 patients entered after their ECG")


def test_settings_of_the_evaluation_can_be_chosen(model, make_site: MakeSite) -> None:
    wanted = EvaluationSettings(horizons_years=[2.0], min_at_risk=1)
    found = evaluate_outside(model, make_site(), settings=wanted)
    assert found.document["brier"]["sites"] == [1]


def test_patients_of_the_part_train_are_said_to_flatter_the_model(model, make_site: MakeSite) -> None:
    (note,) = evaluate_outside(model, make_site(), settings=EvaluationSettings(horizons_years=[2.0])).notes
    assert note.startswith(
        "20 of the 40 patients evaluated are of the part train: if they trained this model"
    )
    assert "--part test leaves them out" in note
    only = EvaluationSettings(horizons_years=[2.0])
    assert evaluate_outside(model, make_site(), "test", settings=only).notes == ()


def test_the_command_prints_the_figures_and_writes_the_recalibrated_model(
    model_folder: Path, make_site: MakeSite, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own"
    (model_folder / EXPLANATION).write_text("tests of its attention")
    write_sums(model_folder, [EXPLANATION])
    assert main(["evaluate", str(model_folder), str(make_site()), "--recalibrate", str(own)]) == 0
    assert (own / EXPLANATION).read_text() == "tests of its attention"  # of the same weights
    told = capsys.readouterr()
    for words in ("40 patients, 14 events", "C-index", "observed/expected", "slope", "Brier", "AUC"):
        assert words in told.out
    assert "too few events" in told.out
    assert "14 events observed" in told.err
    assert "keep it" in told.err
    assert main(["verify", str(own)]) == 0
    assert "recalibrated" in capsys.readouterr().out


def test_the_command_gives_the_document_as_json(
    model_folder: Path, evaluation: OutsideEvaluation, make_site: MakeSite, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(model_folder), str(make_site()), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == evaluation.document | {"left-out": {}}
