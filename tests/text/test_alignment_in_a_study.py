"""Alignment in a whole study: valley has reports, city codes, coast neither. What leaves them, what is said of it."""

import csv
import io
import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.common.serde import recorddict_to_proto
from rich.console import Console

from fedecg.config import StudySettings, parse_settings
from fedecg.federation.documents import AlignmentFigures
from fedecg.federation.tasks import TrainReply
from fedecg.progress import Progress
from fedecg.report.findings import notes
from fedecg.signals import build_store, store_key
from fedecg.text import prompts, scp_statements
from fedecg.text.build import build_bank
from fedecg_client.app import app as client_app
from fedecg_server.run_folder import RunFolder, read_json
from fedecg_server.study import Study
from fedecg_simulations.grid import FIRST_NODE, InProcessGrid
from fedecg_simulations.partitions import partition
from fedecg_simulations.sites import write_sites
from fedecg_simulations.sources import load_dataset

pytest.importorskip("transformers")
from tiny_models import bert

PROMPTS = list(prompts(scp_statements().values()).values())
WORDS = [
    "zebedeequill",
    "mrnqx77412",
    "palpitatiomala",
    "vorhofgeflüster",
]  # planted; nowhere else in the world


@dataclass(frozen=True)
class Finished:
    """A study that ran: where, what travelled in both directions, what was logged and shown."""

    folder: Path
    sites: Path
    travelled: list[bytes]
    said: str
    result: dict[str, Any]
    rounds: list[dict[str, Any]]

    def trained(self, stage: str) -> list[dict[str, Any]]:
        return [entry for entry in self.rounds if entry["stage"] == stage]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert(tmp_path_factory.mktemp("model") / "tiny", [*PROMPTS, *WORDS])


@pytest.fixture(scope="module")
def settings(model: Path, tmp_path_factory: pytest.TempPathFactory) -> StudySettings:
    bank = tmp_path_factory.mktemp("bank") / "tiny.safetensors"
    build_bank(model, "tiny", bank)
    tree = {
        "seed": 102,
        "data": {"sites": {"city": 50, "coast": 40, "valley": 60}, "test-patients": 30},
        "model": {"size": "small"},
        "signals": {"samples": 256},
        "align": {"rounds": 2, "local-steps": 1, "batch-size": 16, "bank": str(bank), "loss": "infonce"},
        "survival": {"rounds": 1, "local-steps": 1, "batch-size": 16},
        "evaluation": {"explain": False, "bootstrap": 0},
        "federation": {"deadline-s": 5.0, "patience-s": 0.0},
    }
    return parse_settings(StudySettings, tree)


def written(settings: StudySettings, model: Path, folder: Path) -> Path:
    """Three site folders: city as it is, coast without codes, valley with planted reports beside its codes."""
    dataset = load_dataset(settings)
    key = store_key(settings.signals, dataset.source, "none")
    store = build_store(folder / "store", key, settings.signals, dataset.recordings, powerline="none")
    write_sites(
        dataset.cohort, store.folder, partition(dataset, settings.partition, settings.seed), folder / "sites"
    )
    for name in ("coast", "valley"):
        table = folder / "sites" / name / "cohort.csv"
        rows = list(csv.DictReader(io.StringIO(table.read_text())))
        for number, row in enumerate(rows):
            row["codes"] = "" if name == "coast" or number % 3 == 0 else row["codes"]
            if name == "valley":
                row["report"] = f"{PROMPTS[number % 71]}. {' '.join(WORDS)}. {WORDS[number % 4]}." * (
                    number % 5 > 0
                )
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        table.write_text(text.getvalue())
    toml = folder / "sites" / "valley" / "site.toml"
    toml.write_text(tomli_w.dumps({"text": {"encoder": str(model), "device": "cpu"}}) + toml.read_text())
    head, tail = toml.read_text().split("name =", 1)  # the table [text] must stand last
    toml.write_text(f"name ={tail}\n{head}")
    return folder / "sites"


def listening(travelled: list[bytes]) -> ClientApp:
    """The real app; every message and every reply is kept as the bytes that Flower sends."""
    app = ClientApp()

    def handle(message: Message, context: Context) -> Message:
        travelled.append(recorddict_to_proto(message.content).SerializeToString())
        travelled.append(repr(message.metadata).encode())
        reply = client_app(message, context)
        travelled.append(recorddict_to_proto(reply.content).SerializeToString())
        travelled.append(repr(reply.metadata).encode())
        return reply

    app.train()(handle)
    app.evaluate()(handle)
    for action in ("join", "survey", "assess"):
        app.query(action)(handle)
    return app


def ran(settings: StudySettings, sites: Path, out: Path) -> Finished:
    """Run the study and keep all that travelled, was logged and was shown."""
    heard, shown, travelled = io.StringIO(), io.StringIO(), list[bytes]()
    root, handler = logging.getLogger(), logging.StreamHandler(heard)
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        names = sorted(file.parent for file in sites.glob("*/site.toml"))
        nodes = {number: {"site-folder": str(name)} for number, name in enumerate(names, start=FIRST_NODE)}
        folder = RunFolder(out)
        folder.begin(settings)
        console = Console(file=shown, width=400)
        study = Study(InProcessGrid(listening(travelled), nodes), settings, folder, Progress(console=console))
        study.resume_or_begin()
        study.join()
        study.align()
        folder.finish(study.conclude(*study.survive()), settings)
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    said = heard.getvalue() + shown.getvalue()
    return Finished(
        out, sites, travelled, said, read_json(out / "result.json"), read_json(out / "rounds.json")
    )


@pytest.fixture(scope="module")
def finished(settings: StudySettings, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("study")
    return ran(settings, written(settings, model, folder), folder / "run")


@pytest.fixture(scope="module")
def without_transformers(
    settings: StudySettings, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Finished]:
    """The same where `import transformers` fails."""
    folder = tmp_path_factory.mktemp("without")
    sites = written(settings, model, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "transformers", None)
        yield ran(settings, sites, folder / "run")


def test_no_byte_of_a_report_is_in_a_message_a_log_or_a_file_that_is_not_the_sites_table(
    finished: Finished,
) -> None:
    table = finished.sites / "valley" / "cohort.csv"
    places = {
        **{f"message {number}": content for number, content in enumerate(finished.travelled)},
        "what was said": finished.said.encode(),
    }
    for root in (finished.folder, finished.sites):
        places |= {
            str(file): file.read_bytes() for file in root.rglob("*") if file.is_file() and file != table
        }
    assert (
        len(finished.travelled) > 4 * 3 * 5
    )  # join, 2 rounds, survey, 1 round, and more: both ways, 3 sites
    assert any(b"valley" in content for content in finished.travelled)
    assert "state(s) nothing" in finished.said
    for word in WORDS:
        for encoding in ("utf-8", "utf-16-le", "latin-1"):
            planted = word.encode(encoding)
            assert [place for place, content in places.items() if planted in content.lower()] == []
    assert all(word in table.read_text() for word in WORDS)


def test_reports_were_used_and_are_remembered_at_their_site_alone(finished: Finished) -> None:
    caches = list(finished.sites.rglob("text-cache/*"))
    assert [cache.parent.parent.name for cache in caches] == ["valley"]
    (rows,) = [
        site["parts"]["train"]["patients"] for site in finished.result["sites"] if site["name"] == "valley"
    ]
    told = {entry["round"]: entry["alignment"] for entry in finished.trained("align")}
    # A third has no codes and a fifth no report: 1 in 15 has neither.
    assert 0.85 * rows < told[1]["valley"]["stated"] < rows
    assert told[1]["city"]["stated"] == finished.result["alignment"]["city"]["stated"] > 0


def test_a_site_with_neither_codes_nor_reports_trains_both_stages_and_the_record_says_so(
    finished: Finished,
) -> None:
    for stage in ("align", "survival"):
        for entry in finished.trained(stage):
            assert entry["answered"] == ["city", "coast", "valley"]
            assert entry["loss"]["coast"] > 0
    first, last = finished.trained("align")
    assert first["alignment"]["coast"] == {"stated": 0, "records": 0, "rank": None, "target-rank": None}
    assert last["alignment"]["coast"]["rank"] is None
    assert (
        "align round 1: coast state(s) nothing of what its ECGs show (no codes, no reports): reconstruction"
        in (finished.said)
    )
    assert finished.said.count("reconstruction only") == 1  # not in every round
    assert finished.result["alignment"]["coast"] == {
        "stated": 0, "records": 0, "rank": None, "target-rank": None, "collapsed": False,
    }  # fmt: skip
    line = "Alignment: coast had neither codes nor reports and reconstructed only."
    assert line in notes({**finished.result, "outcomes": "simulated"})


def test_effective_ranks_stand_in_the_record_of_the_last_round_and_in_the_result(finished: Finished) -> None:
    first, last = finished.trained("align")
    assert first["alignment"]["city"]["rank"] is None
    for site in ("city", "valley"):
        figures = last["alignment"][site]
        assert figures["records"] >= 10
        assert figures["rank"] > 0
        assert figures["target-rank"] > 1
        collapsed = figures["rank"] < 0.5 * figures["target-rank"]
        assert finished.result["alignment"][site] == {**figures, "collapsed": collapsed}


def test_a_site_without_transformers_takes_part_by_codes_and_one_with_reports_is_named(
    without_transformers: Finished,
) -> None:
    for entry in without_transformers.trained("align"):
        assert entry["answered"] == ["city", "coast"]
        assert entry["rejected"] == {"valley": "FECG-248"}
        assert entry["loss"]["city"] > 0
    assert without_transformers.result["status"] == "completed-partial"
    assert not list(without_transformers.sites.rglob("text-cache"))


def test_a_private_study_tells_neither_ranks_nor_how_many_records_state_something(
    settings: StudySettings,
) -> None:
    from fedecg.config import PrivacySettings
    from fedecg.training import Ranks, Trained
    from fedecg_client.work import alignment_figures

    trained = Trained(40, 3, 5, 1.0, stated=30, ranks=Ranks(30, 2.0, 9.0))
    told = alignment_figures(trained, settings)
    assert told == AlignmentFigures(stated=30, records=30, rank=2.0, target_rank=9.0)
    for privacy in (PrivacySettings(mode="sample", sums="noised"), PrivacySettings(sums="masked")):
        assert alignment_figures(trained, settings.model_copy(update={"privacy": privacy})) is None


def test_a_collapse_is_in_the_sites_own_log_even_where_it_is_not_told(
    settings: StudySettings, caplog: pytest.LogCaptureFixture
) -> None:
    from fedecg.config import PrivacySettings
    from fedecg.training import Ranks, Trained
    from fedecg_client.work import alignment_figures

    private = settings.model_copy(update={"privacy": PrivacySettings(mode="sample", sums="noised")})
    with caplog.at_level(logging.WARNING, "fedecg.client"):
        alignment_figures(Trained(40, 3, 5, 1.0, 30, Ranks(30, 6.0, 9.0)), private)
        assert not caplog.records
        alignment_figures(Trained(40, 3, 5, 1.0, 30, Ranks(30, 2.0, 9.0)), private)
    assert (
        "embeddings fill 2.0 directions and what they are pulled to fills 9.0: more align.rounds"
        in caplog.text
    )


def test_ranks_without_records_and_numbers_that_are_none_are_refused() -> None:
    reply = {
        "site": "a",
        "round": 1,
        "patients": 1,
        "events": 0,
        "steps": 1,
        "loss": 0.1,
        "code-fingerprint": "f",
    }
    for figures in (
        {"stated": 1, "rank": 2.0},
        {"stated": 1, "records": 3},
        {"stated": -1},
        {"stated": 1, "text": "x"},
    ):
        with pytest.raises(ValueError, match="alignment"):
            TrainReply.model_validate_json(json.dumps({**reply, "alignment": figures}))
