"""Rounds in which a fraction of the sites take part: who is asked, who is missed, and which weights are kept."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message

from fedecg.config import StudySettings
from fedecg.federation.participation import taking_part
from fedecg.progress import Progress
from fedecg_client.app import app as client_app
from fedecg_server.run_folder import RunFolder, read_json
from fedecg_server.study import run_study
from fedecg_simulations.grid import FIRST_NODE, InProcessGrid

NAMES = ["city", "coast", "valley"]


def partial(settings: StudySettings, fraction: float, **federation: object) -> StudySettings:
    changed = settings.federation.model_copy(update={"fraction": fraction, "deadline_s": 1.0, **federation})
    evaluation = settings.evaluation.model_copy(update={"explain": False})
    survival = settings.survival.model_copy(update={"rounds": 3})
    return settings.model_copy(update={"federation": changed, "evaluation": evaluation, "survival": survival})


def run(settings: StudySettings, sites: Path, folder: Path, app: Callable[..., Message] = client_app) -> Path:
    nodes = {
        number: {"site-folder": str(file.parent)}
        for number, file in enumerate(sorted(sites.glob("*/site.toml")), start=FIRST_NODE)
    }
    out = RunFolder(folder)
    run_study(InProcessGrid(app, nodes), settings, out, Progress())  # type: ignore[arg-type]
    return folder


@pytest.fixture(scope="module")
def finished(settings: StudySettings, sites: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(partial(settings, 0.5), sites, tmp_path_factory.mktemp("half"))


def test_each_round_asks_those_that_the_seed_draws_and_misses_nobody_else(
    settings: StudySettings, finished: Path
) -> None:
    chosen = partial(settings, 0.5)
    records = [
        record for record in read_json(finished / "rounds.json") if record["stage"] in ("align", "survival")
    ]
    assert len(records) == 4
    for record in records:
        drawn = taking_part(NAMES, chosen.federation, chosen.seed, record["stage"], record["round"])
        assert record["expected"] == record["answered"] == drawn
        assert len(drawn) == 2
        assert not record["missing"]
    assert len({tuple(record["answered"]) for record in records}) > 1


def test_the_study_is_complete_and_every_site_is_evaluated(finished: Path) -> None:
    result = read_json(finished / "result.json")
    assert result["status"] == "completed"
    assert [site["name"] for site in result["sites"]] == NAMES
    events = sum(site["parts"]["test"]["events"] for site in result["sites"])
    assert result["evaluation"]["test"]["events"] == events


def test_the_last_weights_are_taken_since_rounds_are_judged_on_other_patients(finished: Path) -> None:
    assert read_json(finished / "result.json")["best-round"] == 3


def test_the_same_seed_gives_the_same_weights(
    settings: StudySettings, sites: Path, finished: Path, tmp_path: Path
) -> None:
    again = run(partial(settings, 0.5), sites, tmp_path)
    one, other = ((folder / "model" / "weights.safetensors").read_bytes() for folder in (finished, again))
    assert one == other


def test_a_drawn_site_that_fails_is_named_and_no_other_takes_its_place(
    settings: StudySettings, sites: Path, tmp_path: Path
) -> None:
    chosen = partial(settings, 0.5, quorum=1)
    drawn = taking_part(NAMES, chosen.federation, chosen.seed, "align", 1)

    def failing(message: Message, context: object) -> Message:
        reply = client_app(message, context)  # type: ignore[arg-type]
        absent = str(context.node_config["site-folder"]).endswith(drawn[0])  # type: ignore[attr-defined]
        if absent and message.metadata.message_type == "train":
            vector = next(iter(reply.content.array_records.values()))
            for key, array in vector.items():
                vector[key] = type(array)(np.full_like(array.numpy(), np.nan))
        return reply

    folder = run(chosen, sites, tmp_path, failing)
    first = read_json(folder / "rounds.json")[0]
    assert first["expected"] == drawn
    assert first["answered"] == drawn[1:]
    assert list(first["rejected"]) == drawn[:1]
    assert read_json(folder / "result.json")["status"] == "completed-partial"


def test_the_quorum_is_met_whatever_the_fraction(
    settings: StudySettings, sites: Path, tmp_path: Path
) -> None:
    folder = run(partial(settings, 0.1, quorum=3), sites, tmp_path)
    assert all(record["answered"] == NAMES for record in read_json(folder / "rounds.json"))
