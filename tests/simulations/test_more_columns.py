"""Columns beside the usual ones: fine-tuned at each site, norms of one's own, a random encoder, measured covariates."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_studies import tiny_study

from fedecg.config import SignalSettings, StudySettings, load_study, parse_settings
from fedecg.errors import ModelError, SettingsError
from fedecg.model import build_network, load_finished, load_model
from fedecg.progress import Progress
from fedecg.signals import Recording
from fedecg.signals.measures import heart_rate_bpm, qrs_ms
from fedecg.signals.preprocessing import preprocess
from fedecg.text import load_bank
from fedecg.training import load_site_data, recalibrated
from fedecg_simulations.runner import run_simulation
from fedecg_simulations.synthetic.consortium import make_patients, make_recordings


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """One run with every column: its folder, its summary."""
    folder = tmp_path_factory.mktemp("columns")
    text = tiny_study(
        folder / "store",
        seed=100,
        data={"test-patients": 90, "sites": {"city": 90, "coast": 80}},
        align={"rounds": 1, "local-steps": 1, "batch-size": 16},
        survival={"rounds": 2, "local-steps": 2},
        federation={"algorithm": "fedbn", "finetune-rounds": 1},
        evaluation={
            "bootstrap": 20,
            "comparison": True,
            "local-models": False,
            "random-encoder": True,
            "measured": True,
        },
    )
    (folder / "tiny.toml").write_text(text)
    return folder / "run", run_simulation(load_study(folder / "tiny.toml"), folder / "run", Progress())


def test_every_column_that_was_asked_for_has_a_stratified_c(study: tuple[Path, dict[str, Any]]) -> None:
    _, summary = study
    for name in ("federated", "finetuned", "shared-norms", "random-encoder", "age-sex-hr-qrs", "pooled"):
        assert 0 <= summary["columns"][name]["c-index-stratified"] <= 1, name
    assert summary["columns"]["finetuned"]["c-index"] is None  # each site by another model
    for name in ("finetuned", "shared-norms", "random-encoder", "age-sex-hr-qrs"):
        assert summary["differences"][f"federated-minus-{name}"]["replicates"] > 0


def test_the_report_shows_them(study: tuple[Path, dict[str, Any]]) -> None:
    text = (study[0] / "report.html").read_text()
    for label in (
        "fine-tuned at each site",
        "federated, mean norms",
        "random encoder",
        "age, sex, rate, QRS",
    ):
        assert label in text


def test_a_random_encoder_stays_as_it_was_drawn(study: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = study
    settings = load_study(folder / "study.toml")
    trained = load_model(folder / "columns" / "random-encoder" / "model").network
    bank_dim = load_bank(settings.align.bank).vectors.shape[1]
    fresh = build_network(settings.model, settings.signals.samples, bank_dim, settings.seed)
    for name, tensor in fresh.encoder.state_dict().items():
        assert torch.equal(trained.encoder.state_dict()[name], tensor), name
    assert not torch.equal(trained.risk.layers[2].weight, fresh.risk.layers[2].weight)


def test_pooled_and_fine_tuning_take_plain_steps_whatever_the_studys_algorithm(
    study: tuple[Path, dict[str, Any]],
) -> None:
    folder, _ = study
    assert load_study(folder / "study.toml").federation.algorithm == "fedbn"
    for column in ("pooled", "finetuned-city"):
        assert load_study(folder / "columns" / column / "study.toml").federation.algorithm == "fedavg"


def test_fine_tuning_begins_with_the_federations_model(study: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = study
    settings = load_study(folder / "columns" / "finetuned-city" / "study.toml")
    assert settings.survival.start == str(folder / "model")
    assert (settings.align.rounds, settings.survival.rounds) == (0, 1)


def test_a_finished_model_gives_a_network_all_that_it_has(study: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = study
    settings, saved = load_study(folder / "study.toml"), load_model(folder / "model")
    network = build_network(settings.model, 256, load_bank(settings.align.bank).vectors.shape[1], 999)
    load_finished(network, folder / "model", settings.signals, saved.bank_sha256)
    for name, tensor in saved.network.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor), name
    with pytest.raises(ModelError, match="FECG-310 model to start from: found another code bank"):
        load_finished(network, folder / "model", settings.signals, "0" * 64)


def test_a_model_to_go_on_with_is_not_aligned_again() -> None:
    with pytest.raises(SettingsError, match="expected align.rounds = 0"):
        parse_settings(StudySettings, {"survival": {"start": "model"}})
    with pytest.raises(SettingsError, match="expected comparison = true"):
        parse_settings(StudySettings, {"evaluation": {"measured": True, "comparison": False}})


@pytest.mark.parametrize(
    "model", [{"encoder": "xresnet1d", "size": "small"}, {"preset": "paper"}, {"size": "small"}]
)
def test_running_statistics_become_those_of_the_sites_own_ecgs(
    study: tuple[Path, dict[str, Any]], model: dict[str, str]
) -> None:
    """Where there are none (preset fedecg) nothing changes; the affine part never does."""
    folder, _ = study
    tree = {"model": model, "evaluation": {"explain": False}, "signals": {"samples": 256}}
    settings = parse_settings(StudySettings, tree)
    bank = load_bank(settings.align.bank)
    site = load_site_data(folder / "sites" / "city", settings, bank)
    network = build_network(settings.model, 256, bank.vectors.shape[1], 1)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    layers = recalibrated(network, site, site.rows("train"), batch_size=16)
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name.split(".")[-1] for name in changed} <= {"running_mean", "running_var", "num_batches_tracked"}
    assert bool(changed) == bool(layers) == (model != {"size": "small"})
    assert not network.training
    again = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    recalibrated(network, site, site.rows("train"), batch_size=16)
    assert all(torch.equal(tensor, again[name]) for name, tensor in network.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["xresnet1d", "transformer"])
def test_a_baseline_encoder_goes_through_a_whole_study(
    study: tuple[Path, dict[str, Any]], tmp_path: Path, encoder: str
) -> None:
    """Both stages, fedbn with an unseen site whose statistics are re-estimated, a model file, a report."""
    folder, _ = study
    settings = load_study(folder / "study.toml")
    settings = settings.model_copy(
        update={
            "model": settings.model.model_copy(update={"encoder": encoder}),
            "federation": settings.federation.model_copy(update={"finetune_rounds": 0}),
            "evaluation": settings.evaluation.model_copy(
                update={"leave_one_site_out": True, "random_encoder": False, "measured": False}
            ),
        }
    )
    summary = run_simulation(settings, tmp_path / "run", Progress())
    assert summary["status"] == "completed"
    assert 0 <= summary["columns"]["unseen-site"]["c-index-stratified"] <= 1
    saved = load_model(tmp_path / "run" / "model").network
    assert saved.settings.encoder == encoder
    signal = torch.zeros(2, 12, 256)
    assert saved.eval().embed(signal).shape == (2, 256)


def test_heart_rate_and_qrs_duration_are_those_that_the_ecgs_were_made_with() -> None:
    patients = make_patients("city", 60, 3)
    signals = [
        preprocess(Recording(signal, patients.rate_hz), SignalSettings(), "none")
        for signal in make_recordings(patients, np.arange(60))
    ]
    rates = np.array([heart_rate_bpm(signal, 100.0) for signal in signals])
    lengths = np.array([qrs_ms(signal, 100.0) for signal in signals])
    sinus = ~patients.findings["af"]
    assert np.median(np.abs(rates - patients.features["heart_rate_bpm"])[sinus]) < 2
    wrong = lengths - patients.features["qrs_ms"]
    assert np.corrcoef(lengths, patients.features["qrs_ms"])[0, 1] > 0.9
    assert abs(wrong.mean()) < 10


def test_a_recording_without_beats_has_neither() -> None:
    flat = np.zeros((12, 1000), np.float32)
    assert np.isnan(heart_rate_bpm(flat, 100.0))
    assert np.isnan(qrs_ms(flat, 100.0))
