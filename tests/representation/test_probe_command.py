"""`fedecg probe` on real PTB-XL and on site folders: tables, JSON, refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from planted import FINDINGS

from fedecg.cli import main
from fedecg.cohort import Cohort
from fedecg.config import ModelSettings, SignalSettings
from fedecg.model import Network, build_network, save_model
from fedecg.representation.records import embed_site, read_sites
from fedecg.signals import Recording, build_store, store_key
from fedecg.text import load_bank
from fedecg_simulations.sites import write_sites

SIGNALS = SignalSettings(samples=256)
BANK = load_bank("minilm-demo")


def network_of(seed: int) -> Network:
    return build_network(ModelSettings(size="small"), SIGNALS.samples, BANK.vectors.shape[1], seed)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "trained" / "model"
    save_model(folder, network_of(5), SIGNALS, BANK.sha256)
    return folder


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sites of 150 and 60 patients whose ECGs are noise of a strength that follows the finding."""
    root = tmp_path_factory.mktemp("sites")
    rng = np.random.default_rng(0)
    finding = rng.integers(len(FINDINGS), size=210)
    loud = (0.2 + 0.4 * finding)[:, None, None] * rng.standard_normal((210, 12, 300))
    recordings = [Recording(one.astype(np.float32), 100.0) for one in loud]
    store = build_store(
        root / "store", store_key(SIGNALS, "noise", "none"), SIGNALS, recordings, powerline="none"
    )
    assert set(store.codes) == {""}
    cohort = Cohort(
        record=np.arange(210),
        patient=np.arange(210),
        part=rng.choice(["train", "validation", "test"], size=210, p=[0.5, 0.2, 0.3]),
        event=np.ones(210, dtype=bool),
        follow_up_days=np.full(210, 9.0),
        entry_days=np.zeros(210),
        died=np.zeros(210, dtype=bool),
        age_years=np.full(210, 50.0),
        female=np.zeros(210),
        codes=tuple({FINDINGS[at]: 100.0} for at in finding),
    )
    write_sites(cohort, store.folder, {"north": np.arange(150), "south": np.arange(150, 210)}, root / "sites")
    return root / "sites"


def probe(*words: object) -> int:
    return main(["probe", *(str(word) for word in words)])


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert probe(*words) == 3
    return capsys.readouterr().err


def test_a_model_stands_beside_a_random_encoder_and_others(
    model: Path, sites: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(tmp_path / "none", network_of(6), SIGNALS, "another bank")
    words = (model, "--data", sites, "--bootstrap", 50, "--beside", f"plain={tmp_path / 'none'}")
    assert probe(*words, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["models"]) == ["trained", "random encoder", "plain"]
    assert {name: sum(parts.values()) for name, parts in found["sites"].items()} == {
        "north": 150,
        "south": 60,
    }
    mine = found["models"]["trained"]
    shown = mine["probes"]["superclass@1"]
    assert shown["macro-auc"] > 0.8  # loudness is easily seen in any embedding
    assert shown["ci-low"] < shown["macro-auc"] < shown["ci-high"]
    assert shown["federated"]["lower"] <= shown["macro-auc"] <= shown["federated"]["upper"]
    assert mine["probes"]["superclass@0.01"]["not-shown"].endswith("fewer than 50")
    assert mine["zero-shot"]["classes"]
    assert found["models"]["plain"]["zero-shot"] is None
    assert found["models"]["plain"]["without-bank"] == "aligned to another bank"
    apart = found["differences"]["random encoder"]["superclass@1"]
    both = [
        found["models"][name]["probes"]["superclass@1"]["macro-auc"] for name in ("trained", "random encoder")
    ]
    assert apart["difference"] == pytest.approx(both[0] - both[1])
    assert apart["ci-low"] <= apart["difference"] <= apart["ci-high"]
    assert probe(*words) == 0
    printed = capsys.readouterr().out
    for part in ("superclass, 100 % of labels", "not shown (", "For certain".lower(), "ECG to statement, first 1",
                 "plain: no zero-shot (aligned to another bank)", "effective rank"):  # fmt: skip
        assert part in printed


def test_one_site_alone_is_judged_exactly(
    model: Path, sites: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe(model, "--data", sites / "north", "--bootstrap", 20, "--left-out", "IMI,LVH", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["sites"]) == ["north"]
    shown = found["models"]["trained"]["probes"]["superclass@1"]
    assert shown["federated"]["lower"] == shown["federated"]["upper"] == pytest.approx(shown["macro-auc"])
    assert {one["name"] for one in found["models"]["trained"]["zero-shot-left-out"]["classes"]} == {
        "IMI",
        "LVH",
    }


def test_the_same_seed_gives_the_same_document(
    model: Path, sites: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = []
    for seed in (0, 0, 1):
        assert probe(model, "--data", sites / "north", "--bootstrap", 20, "--seed", seed, "--json") == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]


def test_ptbxl_as_published_has_its_own_sites_and_keeps_its_store(data_root: Path, tmp_path: Path) -> None:
    found = read_sites(data_root / "ptbxl", SIGNALS, tmp_path)
    assert {site.name: len(site.record) for site in found} == {
        "site-0": 164, "site-1": 126, "site-2": 11, "site-3": 38,
    }  # fmt: skip
    assert all(set(site.part) <= {"train", "validation", "test"} for site in found)
    again = read_sites(data_root / "ptbxl", SIGNALS, tmp_path)
    assert [folder.name for folder in tmp_path.iterdir()] == [again[0].store.folder.name]


@pytest.mark.slow
def test_ptbxl_as_published_is_judged_with_its_own_sites(
    model: Path, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--data", data_root / "ptbxl", "--bootstrap", 20, "--store", tmp_path, "--json")
    assert probe(model, *words) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["sites"]) == ["site-0", "site-1", "site-2", "site-3"]
    assert sum(sum(parts.values()) for parts in found["sites"].values()) == 339
    probes = found["models"]["trained"]["probes"]
    assert probes["superclass@0.1"]["not-shown"]
    assert probes["superclass@1"]["macro-auc"] is not None
    assert {one["name"] for one in probes["superclass@1"]["apart"]} >= {"HYP"}
    assert len(list(tmp_path.iterdir())) == 1  # the store is kept


def test_embeddings_are_those_of_the_network_in_the_order_of_the_records(sites: Path) -> None:
    network = network_of(5).eval()
    (site,) = read_sites(sites / "south", SIGNALS, sites)
    with torch.inference_mode():
        expected = network.embed(torch.from_numpy(site.store.batch(site.record)))
    np.testing.assert_allclose(embed_site(network, site).embedding, expected.numpy(), atol=1e-5)


def test_a_folder_without_records_is_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = refused(capsys, model, "--data", tmp_path)
    assert "FECG-370 --data: found neither ptbxl_database.csv nor site.toml" in text


def test_a_store_of_other_signals_is_refused(
    sites: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = SIGNALS.model_copy(update={"lowpass_hz": 30.0})
    save_model(tmp_path / "model", network_of(5), other, BANK.sha256)
    text = refused(capsys, tmp_path / "model", "--data", sites)
    assert "FECG-350 signal store: found 1 setting(s) other than the model's: lowpass-hz" in text


def test_weights_that_give_no_finite_embedding_are_refused(
    sites: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = network_of(5)
    with torch.no_grad():
        next(network.encoder.pooling.parameters()).fill_(float("nan"))
    save_model(tmp_path / "model", network, SIGNALS, BANK.sha256)
    text = refused(capsys, tmp_path / "model", "--data", sites)
    assert "FECG-371 embeddings: found 150 of 150 that are not finite" in text


def test_a_bank_of_another_alignment_is_refused(
    sites: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(tmp_path / "model", network_of(5), SIGNALS, "")
    text = refused(capsys, tmp_path / "model", "--data", sites, "--bank", "minilm-demo")
    assert f"FECG-372 --bank: found sha256 {BANK.sha256[:12]}...; expected none: not aligned" in text


def test_codes_left_out_that_the_bank_does_not_have_are_refused(
    model: Path, sites: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = refused(capsys, model, "--data", sites, "--left-out", "IMI, XYZ,afib")
    assert "FECG-378 --left-out: found 2 of 3 codes that the bank does not have; expected codes of" in text
    assert "fedecg bank show BANK" in text


def test_two_models_of_one_name_are_refused(
    model: Path, sites: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = refused(capsys, model, "--data", sites, "--beside", f"trained={model}")
    assert "FECG-373 --beside: found 3 models with 2 different names" in text


def test_models_of_other_input_are_not_compared(
    model: Path, sites: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = SIGNALS.model_copy(update={"lowpass_hz": 30.0})
    save_model(tmp_path / "other", network_of(5), other, BANK.sha256)
    text = refused(capsys, model, "--data", sites, "--beside", f"other={tmp_path / 'other'}")
    assert "FECG-374 --beside: found 1 of 1 models with other [signals] settings" in text


@pytest.mark.parametrize("words", [("--beside", "nameless"), ("--bootstrap", "-1"), ("--records-hz", "250")])
def test_wrong_words_are_wrong_use(model: Path, sites: Path, words: tuple[str, str]) -> None:
    with pytest.raises(SystemExit) as status:
        probe(model, "--data", sites, *words)
    assert status.value.code == 2
