"""A partition written down and drawn: what the command leaves, and what is refused before anything is computed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedecg.config import StudySettings, load_study, parse_settings
from fedecg.errors import CohortError
from fedecg.progress import Progress
from fedecg.signals import LEADS
from fedecg_simulations.cli import main
from fedecg_simulations.drift import recorder_of
from fedecg_simulations.partition_figure import SITES_NAMED, partition_figure
from fedecg_simulations.partition_report import partition_document, partition_words, write_partition
from fedecg_simulations.partitions import virtual_sites
from fedecg_simulations.runner import ingest, without_refused
from fedecg_simulations.sources import load_dataset

CONFIG = """
name = "split"
seed = 100
[data]
store = "{store}"
test-patients = 40
sites = {{ city = 120, rural = 80 }}
[signals]
samples = 256
"""
SKEWED = [
    "partition.by=dirichlet", "partition.sites=4", "partition.alpha=0.3", "partition.sizes=equal",
    "partition.follow-up=staggered", "drift.gain=0.1", "drift.missing-leads=6", "drift.rates-hz=[250, 500]",
]  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "split.toml"
    file.write_text(CONFIG.format(store=tmp_path / "store"))
    return file


def document_of(config: Path, *overrides: str) -> dict[str, Any]:
    settings = load_study(config, overrides)
    dataset, parts = virtual_sites(
        load_dataset(settings), settings.partition, settings.seed, settings.data.events, settings.drift
    )
    return partition_document(settings, dataset, parts)


def test_the_command_draws_a_composed_partition_and_trains_nothing(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "drawn"
    assert main(["partition", str(config), "--out", str(out), "--set", *SKEWED]) == 0
    names = sorted(file.relative_to(out).as_posix() for file in out.rglob("*") if file.is_file())
    assert names == ["figures/partition.png", "figures/partition.svg", "partition.json"]
    document = json.loads((out / "partition.json").read_text())
    assert document == document_of(config, *SKEWED)
    assert document["partition"] == (
        "Dirichlet 0.3 over superclass, equal sizes, staggered follow-up, recorders drift"
    )
    assert document["label-divergence-bits"] > 2 * document["label-divergence-bits-by-chance"]
    assert {"site-01", "site-04"} < {site["site"] for site in document["sites"]}
    assert not (tmp_path / "store").exists()
    said = capsys.readouterr()
    assert "bits of the superclass" in said.out
    assert "of the event (" in said.out
    assert "Outcomes are SIMULATED" in said.out
    assert "partition.png" in said.err


def test_the_numbers_come_as_json_and_without_out_nothing_is_written(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert main(["partition", str(config), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == document_of(config)
    assert sorted(tmp_path.rglob("*")) == before


def test_each_sites_recorder_stands_in_the_document(config: Path) -> None:
    settings = load_study(config, SKEWED)
    for site in document_of(config, *SKEWED)["sites"]:
        recorder = recorder_of(site["site"], settings.drift, 100)
        assert site["recorder"]["gain"] == round(recorder.gain, 4)
        assert site["recorder"]["rate-hz"] in (250.0, 500.0)
        assert site["recorder"].get("missing", []) == [LEADS[lead] for lead in recorder.missing]
        assert "hum-mv" not in site["recorder"]
    assert all("recorder" not in site for site in document_of(config)["sites"])


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({}, "by site"),
        ({"by": "column", "column": "year"}, "by year"),
        ({"by": "iid", "follow-up": "disjoint"}, "IID, disjoint follow-up"),
        ({"by": "quantity", "alpha": 2.0}, "quantity 2"),
        ({"by": "quantity", "sizes": "power-law", "exponent": 1.5}, "quantity, power-law 1.5 sizes"),
        ({"by": "dirichlet", "label": "event", "alpha": 0.1}, "Dirichlet 0.1 over event"),
    ],
)
def test_a_partition_is_said_in_a_line(tree: dict[str, object], words: str) -> None:
    assert partition_words(parse_settings(StudySettings, {"partition": tree})) == words


@pytest.mark.parametrize("command", ["run", "partition"])
def test_a_partition_that_cannot_be_is_refused_before_anything_is_computed(
    command: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    impossible = ["partition.by=quantity", "partition.alpha=0.01", "partition.sites=40"]
    out = tmp_path / "never"
    assert main([command, str(config), "--out", str(out), "--set", *impossible]) == 3
    said = capsys.readouterr().err
    assert "FECG-625 virtual sites: found" in said
    assert said.count("site-") == 10  # the names of ten, however many there are
    assert " more;" in said
    assert not (tmp_path / "store").exists()
    assert not list(out.glob("*.json"))


def test_a_site_whose_training_ecgs_were_all_refused_is_named(config: Path) -> None:
    settings = load_study(config, ["partition.by=iid", "partition.sites=3", "data.sites.city=30"])
    dataset, parts = virtual_sites(load_dataset(settings), settings.partition, settings.seed)
    store = ingest(dataset, settings, Progress())
    training = {name: rows[dataset.cohort.part[rows] == "train"] for name, rows in parts.items()}
    codes = np.array(store.codes, dtype="<U8")
    codes[dataset.cohort.record[training["site-02"]]] = "FECG-213"
    object.__setattr__(store, "codes", tuple(codes.tolist()))
    with pytest.raises(
        CohortError,
        match=r"FECG-633 virtual sites: found 1 whose training recordings were all refused: site-02; expected at",
    ):
        without_refused(dataset, store, parts)


def many(sites: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "outcomes": "simulated",
        "partition": "by hand",
        "label-divergence-bits": 0.5,
        "label-divergence-bits-by-chance": 0.1,
        "survival-horizon-years": 5.0,
        "survival-of-all": 0.9,
        "largest-difference-of-survival": 0.2,
        "sites": [
            {
                "site": f"$site$_{number}",
                "patients": int(rng.integers(5, 50)),
                "events": int(rng.integers(0, 5)),
                "label-mix": {"NORM": 0.5, "MI": 0.5},
                "label-divergence-bits": float(rng.random()),
                "events-a-100-years": float(rng.random()),
                "survival": None if number == 1 else 0.8,
                "survival-ci-low": None if number == 1 else 0.7,
                "survival-ci-high": None if number == 1 else 0.9,
            }
            for number in range(sites)
        ],
    }


def test_a_few_sites_have_a_row_each_and_many_are_drawn_as_distributions(tmp_path: Path) -> None:
    few, several = (partition_figure(many(sites)) for sites in (SITES_NAMED, SITES_NAMED + 1))
    names = [text.get_text() for text in few.axes[0].get_yticklabels()]
    assert names[0] == "$site$_0"
    assert len(names) == SITES_NAMED
    assert several.axes[0].get_xlabel() == "sites, largest first"
    assert "too few so far" in {text.get_text() for text in few.axes[3].texts}
    assert partition_figure(many(1000)).get_size_inches()[1] < 7
    for path in write_partition(many(200), tmp_path):
        assert path.stat().st_size < 1_000_000


def test_without_survival_the_rate_of_events_is_drawn() -> None:
    document = many(3) | {"survival-of-all": None, "survival-horizon-years": None}
    assert partition_figure(document).axes[3].get_xlabel().startswith("events per 100 patient-years")
    document = many(100) | {"survival-of-all": None, "survival-horizon-years": None}
    assert partition_figure(document).axes[3].get_xlabel().startswith("events per 100 patient-years")


def test_the_same_partition_gives_the_same_bytes(tmp_path: Path) -> None:
    one, other = (
        [path.read_bytes() for path in write_partition(many(2), tmp_path / name)] for name in ("a", "b")
    )
    assert one == other
