"""fedadam, fedyogi, scaffold and fedbn through the real apps: what they keep survives kills, to the bit."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from study_in_process import Killed, study_over, to_the_end

from fedecg.config import StudySettings, parse_settings
from fedecg.errors import FederationError, SettingsError
from fedecg.federation.messages import unpack
from fedecg.federation.tasks import TrainReply, TrainTask
from fedecg.progress import Progress
from fedecg.training import read_sealed, write_sealed
from fedecg_client import work
from fedecg_client.own_norms import own_norms
from fedecg_server import study_state as state_module
from fedecg_server.run_folder import read_json
from fedecg_server.study import Study
from fedecg_simulations.grid import InProcessGrid

ALGORITHMS = ["fedadam", "fedyogi", "scaffold", "fedbn"]
Make = Callable[..., Study]
Whole = Callable[[str], Study]


@pytest.fixture(scope="module")
def make(settings: StudySettings, sites: Path) -> Make:
    """A study of an algorithm over the consortium's sites, in a folder that keeps a checkpoint."""

    def made(algorithm: str, folder: Path, rounds: int = 2, **federation: Any) -> Study:
        federation = {"algorithm": algorithm, "quorum": 2, "deadline_s": 5.0, "patience_s": 0.0} | federation
        optimizer = {"optimizer": "sgd", "learning_rate": 0.05} if algorithm == "scaffold" else {}
        changed = settings.model_copy(
            update={
                "federation": settings.federation.model_copy(update=federation),
                "align": settings.align.model_copy(update=optimizer),
                "survival": settings.survival.model_copy(update={**optimizer, "rounds": rounds}),
                "evaluation": settings.evaluation.model_copy(update={"explain": False}),
            }
        )
        return study_over(sites, changed, folder)

    return made


@pytest.fixture(scope="module")
def whole(make: Make, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A study of an algorithm that nothing disturbed, run once for all tests: they only look at it."""

    @cache
    def run(algorithm: str) -> Study:
        study = make(algorithm, tmp_path_factory.mktemp("whole") / algorithm)
        to_the_end(study)
        return study

    return run


def weights(folder: Path) -> bytes:
    return (folder / "model" / "weights.safetensors").read_bytes()


@pytest.mark.parametrize("saved", [pytest.param(1, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize(
    "algorithm", ["fedadam", pytest.param("fedyogi", marks=pytest.mark.slow), "scaffold", "fedbn"]
)
def test_a_study_that_was_killed_ends_with_the_same_bits(
    make: Make,
    whole: Whole,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    algorithm: str,
    saved: int,
) -> None:
    undisturbed = weights(whole(algorithm).folder.path)
    honest, calls = state_module.write_state, [0]

    def stopping(*arguments: Any) -> None:
        calls[0] += 1
        honest(*arguments)
        if calls[0] == saved:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(state_module, "write_state", stopping)
        with pytest.raises(Killed):
            to_the_end(make(algorithm, tmp_path / "killed"))
    to_the_end(make(algorithm, tmp_path / "killed"))
    assert weights(tmp_path / "killed") == undisturbed


@pytest.mark.parametrize("algorithm", [pytest.param("scaffold", marks=pytest.mark.slow), "fedbn"])
def test_a_round_that_was_lost_before_its_checkpoint_is_done_again_to_the_same_bits(
    make: Make,
    whole: Whole,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    algorithm: str,
) -> None:
    """The sites have already written what follows from the round; the coordinator has not."""
    undisturbed = weights(whole(algorithm).folder.path)
    honest, calls = state_module.write_state, [0]

    def stopping(*arguments: Any) -> None:
        calls[0] += 1
        if calls[0] == 4:  # alignment, survey, the first survival round are kept; the second is lost
            raise Killed
        honest(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(state_module, "write_state", stopping)
        with pytest.raises(Killed):
            to_the_end(make(algorithm, tmp_path / "killed"))
    to_the_end(make(algorithm, tmp_path / "killed"))
    assert weights(tmp_path / "killed") == undisturbed


def test_every_algorithm_makes_as_many_steps_and_sends_as_many_numbers(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What docs/algorithms.md says; scaffold's way to a site is twice as wide, and tested below."""
    pull = InProcessGrid.pull_messages
    sent: dict[str, list[tuple[str, int, int, int]]] = {}

    def listening(grid: InProcessGrid, messages: Iterable[str]) -> Iterator[Message]:
        for reply in pull(grid, messages):
            with suppress(FederationError):  # another kind of document
                told, vector = unpack(reply.content, TrainReply)
                assert vector is not None
                sent[algorithm].append((told.site, told.round, told.steps, len(vector)))
            yield reply

    monkeypatch.setattr(InProcessGrid, "pull_messages", listening)
    for algorithm in ["fedavg", "fedprox", *ALGORITHMS]:
        sent[algorithm] = []
        more = {"proximal_mu": 0.1} if algorithm == "fedprox" else {}
        to_the_end(make(algorithm, tmp_path / algorithm, rounds=1, **more))
    assert len(sent["fedavg"]) >= 4  # two sites, two stages
    assert all(steps > 0 and numbers > 1000 for _, _, steps, numbers in sent["fedavg"])
    for algorithm, told in sent.items():
        assert told == sent["fedavg"], algorithm


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_it_is_another_federation_than_fedavg(
    make: Make, whole: Whole, tmp_path: Path, algorithm: str
) -> None:
    run = whole(algorithm)
    if algorithm == "scaffold":  # the same local steps: what differs is the control variate alone
        plain = make("fedavg", tmp_path / "fedavg")
        settings = run.settings.model_copy(update={"federation": plain.settings.federation})
        plain = Study(plain.grid, settings, plain.folder, Progress())
        to_the_end(plain)
    else:
        plain = whole("fedavg")
    last, of_fedavg = (study.trained["survival"].whole() for study in (run, plain))
    assert np.isfinite(last).all()
    assert not np.array_equal(last, of_fedavg)


def test_scaffold_sends_twice_as_much_to_a_site_and_no_more_back(whole: Whole) -> None:
    bytes_of = {}
    for algorithm in ("fedavg", "scaffold"):
        run = whole(algorithm)
        bytes_of[algorithm] = read_json(run.folder.path / "rounds.json")[0]["bytes"]
        size = len(run._vector("align"))
    # `bytes` counts both ways, for three sites: two vectors of P float32 with fedavg, three with scaffold.
    assert bytes_of["fedavg"] == pytest.approx(3 * 2 * 4 * size, rel=0.05)
    assert bytes_of["scaffold"] - bytes_of["fedavg"] == pytest.approx(3 * 4 * size, rel=0.05)


def collect_tasks(monkeypatch: pytest.MonkeyPatch, found: list[tuple[str, TrainTask]]) -> None:
    honest = work.control_of

    def seen(folder: Path, task: TrainTask, site: str, everybody: np.ndarray) -> Any:
        found.append((site, task))
        return honest(folder, task, site, everybody)

    monkeypatch.setattr(work, "control_of", seen)


def test_a_site_whose_control_variate_is_gone_says_so_and_the_rest_go_on(
    make: Make, sites: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[tuple[str, TrainTask]] = []
    collect_tasks(monkeypatch, found)
    run = make("scaffold", tmp_path / "run")
    honest = Study._save

    def losing(self: Study, stage: str, hazard: Any, done: int, vector: Any) -> None:
        honest(self, stage, hazard, done, vector)
        if (stage, done) == ("survival", 1):
            for file in (sites / "coast" / "state" / "own").glob(f"control-{self.run}-survival-*"):
                file.unlink()

    monkeypatch.setattr(Study, "_save", losing)
    to_the_end(run)
    second = read_json(tmp_path / "run" / "rounds.json")
    [record] = [entry for entry in second if (entry["stage"], entry["round"]) == ("survival", 2)]
    assert record["rejected"] == {"coast": "FECG-392"}
    assert record["answered"] == ["city", "valley"]
    told = {(site, task.stage, task.round): task.controls for site, task in found}
    assert told["city", "survival", 1] == {}
    assert told["city", "survival", 2] == {"city": 1, "coast": 1, "valley": 1}


def test_a_control_variate_of_another_round_is_refused(
    make: Make, sites: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make("scaffold", tmp_path / "run")
    honest = Study._save

    def changing(self: Study, stage: str, hazard: Any, done: int, vector: Any) -> None:
        honest(self, stage, hazard, done, vector)
        if (stage, done) == ("survival", 1):
            [file] = (sites / "city" / "state" / "own").glob(f"control-{self.run}-survival-*")
            arrays, document = read_sealed(file)
            write_sealed(file, {"round-9": arrays["round-1"]}, document)

    monkeypatch.setattr(Study, "_save", changing)
    to_the_end(run)
    entries = read_json(tmp_path / "run" / "rounds.json")
    [record] = [entry for entry in entries if (entry["stage"], entry["round"]) == ("survival", 2)]
    assert record["rejected"] == {"city": "FECG-392"}


def test_the_mean_control_of_the_server_is_that_of_the_sites_own_files(
    make: Make, sites: Path, tmp_path: Path
) -> None:
    run = make("scaffold", tmp_path / "run", rounds=3)
    to_the_end(run)
    memory = run._remembered["survival"]
    assert memory.controls is not None
    own = {}
    for site in ("city", "coast", "valley"):
        [file] = (sites / site / "state" / "own").glob(f"control-{run.run}-survival-*")
        own[site] = read_sealed(file)[0]["round-3"]
    shares = memory.controls.weights
    expected = sum(shares[site] * own[site].astype(np.float64) for site in own) / sum(shares.values())
    np.testing.assert_allclose(memory.controls.mean(shares), expected, rtol=0, atol=1e-6)
    assert np.abs(expected).max() > 1e-4


def test_with_fedbn_every_site_keeps_norms_of_its_own_and_the_model_ships_their_mean(
    make: Make, sites: Path, tmp_path: Path
) -> None:
    run = make("fedbn", tmp_path / "run", rounds=3)
    to_the_end(run)
    norms = {site: own_norms(sites / site, run.run, "survival", 3) for site in ("city", "coast", "valley")}
    name = "encoder.temporal.attention_norm.weight"
    assert not np.array_equal(norms["city"][name], norms["coast"][name])
    assert all("norm" in key or key.startswith("risk.layers.0") for key in norms["city"])
    sent = {site: own_norms(sites / site, run.run, "survival", 1)[name] for site in norms}
    later = {site: own_norms(sites / site, run.run, "survival", 2)[name] for site in norms}
    assert any(not np.array_equal(sent[site], later[site]) for site in norms)


def test_before_its_first_survival_round_a_site_has_the_norms_of_its_alignment(
    make: Make, sites: Path, tmp_path: Path
) -> None:
    run = make("fedbn", tmp_path / "run")
    to_the_end(run)
    aligned = own_norms(sites / "city", run.run, "align", 1)
    before = own_norms(sites / "city", run.run, "survival", 0)
    assert aligned
    assert {name: values.tobytes() for name, values in before.items()} == {
        name: values.tobytes() for name, values in aligned.items()
    }
    assert own_norms(sites / "city", "0" * 16, "survival", 5) == {}


@pytest.mark.parametrize("algorithm", ["scaffold", "fedbn"])
@pytest.mark.parametrize("privacy", [{"mode": "sample", "sums": "noised"}, {"sums": "masked"}])
def test_what_cannot_be_combined_is_refused_when_the_settings_are_read(
    algorithm: str, privacy: dict[str, str]
) -> None:
    sgd = {"optimizer": "sgd"}
    tree = {"federation": {"algorithm": algorithm}, "privacy": privacy, "align": sgd, "survival": sgd}
    with pytest.raises(SettingsError, match=f'expected another federation.algorithm than "{algorithm}"'):
        parse_settings(StudySettings, tree)


def test_fedbn_is_not_trained_again_with_other_seeds() -> None:
    tree = {"federation": {"algorithm": "fedbn"}}
    with pytest.raises(SettingsError, match="expected evaluation.explain-seeds = 0"):
        parse_settings(StudySettings, tree)
    assert parse_settings(StudySettings, {**tree, "evaluation": {"explain-seeds": 0}}).evaluation.explain


def test_scaffold_with_adamw_is_refused_where_the_stage_has_rounds() -> None:
    tree = {"federation": {"algorithm": "scaffold"}, "survival": {"optimizer": "sgd"}}
    with pytest.raises(SettingsError, match='expected optimizer = "sgd"'):
        parse_settings(StudySettings, tree)
    settings = parse_settings(StudySettings, {**tree, "align": {"rounds": 0}})
    assert settings.federation.algorithm == "scaffold"
