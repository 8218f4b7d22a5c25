"""Training again with other seeds, through the real apps: it tells how stable attention is and disturbs nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from study_in_process import Killed, to_the_end, without_times

from fedecg.errors import FederationError
from fedecg.explanation import stability, stability_sums
from fedecg.federation.messages import pack
from fedecg.federation.tasks import Failure, TrainTask
from fedecg.model import Network, build_network, load_model, load_vector, stage_tensors, to_vector
from fedecg.text import load_bank
from fedecg.training import load_site_data
from fedecg.training.randomness import repeated_seed
from fedecg_client import work
from fedecg_client.workplace import Workplace
from fedecg_server import conclusion as conclusion_module
from fedecg_server.run_folder import RunFolder, read_json
from fedecg_server.stability import Repeats, survival_start
from fedecg_server.study import Study

Make = Callable[..., Study]


def in_folder(run: Study, folder: Path, resumable: bool = False) -> Study:
    run.folder = RunFolder(folder, resumable=resumable)
    run.journal.folder = folder
    return run


def network_of(run: Study, seed: int) -> Network:
    dim = load_bank(run.settings.align.bank).vectors.shape[1]
    return build_network(run.settings.model, run.settings.signals.samples, dim, seed)


def test_the_studys_own_numbers_are_those_of_a_study_that_does_not_train_again(
    study: Make, tested_sites: Path, tmp_path: Path
) -> None:
    runs, results = {}, {}
    for seeds in (0, 2):
        run = study(explain_ecgs=10, explain_seeds=seeds, folder=tested_sites)
        runs[seeds] = in_folder(run, tmp_path / str(seeds))
        results[seeds] = to_the_end(run)
    alone, again = (without_times(results[seeds]) for seeds in (0, 2))
    for told in ("lock-sha256", "settings-sha256"):  # explain-seeds is a setting
        assert alone.pop(told) != again.pop(told)
    assert alone == again
    weights = [(tmp_path / seeds / "model" / "weights.safetensors").read_bytes() for seeds in ("0", "2")]
    assert weights[0] == weights[1]
    assert (tmp_path / "0/assessment.json").read_bytes() == (tmp_path / "2/assessment.json").read_bytes()
    books = [without_times(read_json(tmp_path / seeds / "rounds.json")) for seeds in ("0", "2")]
    own = len(books[0])
    for one, other in zip(books[0], books[1][:own], strict=True):
        # The lock is another one: its hash is in every message, of one length.
        assert one == other
    added = [(entry["stage"], entry["round"]) for entry in books[1][own:]]
    assert added == [
        (stage, number)
        for seed in (1, 2)
        for stage, number in (
            (f"survival, seed {seed}", 1),
            (f"survival, seed {seed}", 2),
            (f"validation, seed {seed}", 2),
        )
    ]
    # The status tells the study's own C-index, not that of a repetition.
    status = [read_json(tmp_path / seeds / "status.json")["c-index"] for seeds in ("0", "2")]
    assert status[0] == status[1]
    assert results[2]["seconds"]["survival, seed 1"] > 0
    explanation = read_json(tmp_path / "2/explanation.json")
    assert explanation["stability"]["models"] == 3
    assert read_json(tmp_path / "0/explanation.json")["stability"] is None


def test_stability_from_sums_is_that_of_the_models_on_the_pooled_ecgs(
    study: Make, tested_sites: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []
    honest = conclusion_module.joined_models
    monkeypatch.setattr(
        conclusion_module, "joined_models", lambda models: honest(sent.append(models) or models)
    )
    run = study(explain_ecgs=40, explain_seeds=1, folder=tested_sites)
    to_the_end(run)
    ((chosen, other),) = sent
    assert not np.array_equal(chosen, other)
    networks = [load_model(run.folder.model).network, network_of(run, 0).eval()]
    load_vector(networks[1], stage_tensors(networks[1], "survival", False), other)
    bank = load_bank(run.settings.align.bank)
    data = [
        load_site_data(file.parent, run.settings, bank) for file in sorted(tested_sites.glob("*/site.toml"))
    ]
    signal = np.concatenate([site.signals(site.rows("test")).numpy() for site in data])
    pooled = stability(stability_sums(networks, signal))
    entry = read_json(run.folder.path / "explanation.json")
    assert entry["stability"]["time"] == pytest.approx(pooled.time, abs=1e-6)
    assert entry["stability"]["leads"] == pytest.approx(pooled.leads, abs=1e-6)
    sentences = [one["sentence"] for one in entry["verdicts"] if one["test"] == "stability over seeds"]
    assert len(sentences) == 2
    assert all(
        text.endswith("over seeds of the survival stage; the alignment is shared") for text in sentences
    )


def test_the_survival_stage_begins_with_the_aligned_weights_and_a_new_risk_head(study: Make) -> None:
    run = study()
    own, fresh = network_of(run, run.settings.seed), network_of(run, repeated_seed(run.settings.seed, 1))
    new_head = fresh.risk.layers[2].weight.detach().clone()
    names = stage_tensors(own, "survival", False)
    vector = survival_start(fresh, run.settings, to_vector(own, names))
    assert vector.shape == to_vector(own, names).shape
    load_vector(fresh, names, vector)
    for name, tensor in own.encoder.state_dict().items():
        assert (tensor == fresh.encoder.state_dict()[name]).all()
    assert (fresh.risk.layers[2].weight == new_head).all()
    assert not (fresh.risk.layers[2].weight == own.risk.layers[2].weight).all()


@pytest.mark.slow
def test_from_scratch_both_stages_are_trained_again(study: Make, tested_sites: Path) -> None:
    run = study(explain_ecgs=10, explain_seeds=1, seeds_from="scratch", folder=tested_sites)
    to_the_end(run)
    stages = [entry["stage"] for entry in read_json(run.folder.path / "rounds.json")]
    assert stages[-4:] == ["align, seed 1", "survival, seed 1", "survival, seed 1", "validation, seed 1"]
    entry = read_json(run.folder.path / "explanation.json")
    assert entry["verdicts"][-1]["sentence"].endswith("between 2 models over seeds of both stages")
    shared = study(explain_ecgs=10, explain_seeds=1, folder=tested_sites)
    to_the_end(shared)
    aligned = read_json(shared.folder.path / "explanation.json")
    assert entry["stability"]["leads"] < aligned["stability"]["leads"]


@pytest.mark.slow
@pytest.mark.parametrize("stopped_in", ["training", "explaining"])
def test_a_study_stopped_while_it_trains_again_does_so_again_with_the_same_bits(
    study: Make, tested_sites: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped_in: str
) -> None:
    make = lambda folder: in_folder(  # noqa: E731
        study(explain_ecgs=10, explain_seeds=1, folder=tested_sites), folder, resumable=True
    )
    whole = to_the_end(make(tmp_path / "whole"))
    honest = Study._rounds

    def stopping(run: Study, *arguments: Any) -> Any:
        after = honest(run, *arguments)
        if arguments[0].repeat:
            raise Killed
        return after

    def stopping_sums(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if stopped_in == "training":
            patch.setattr(Study, "_rounds", stopping)
        else:
            patch.setattr(conclusion_module, "joined_models", stopping_sums)
        with pytest.raises(Killed):
            to_the_end(make(tmp_path / "resumed"))
    result = to_the_end(make(tmp_path / "resumed"))
    assert without_times(result) == without_times(whole)
    for name in ("explanation.json", "rounds.json"):
        one, other = (without_times(read_json(tmp_path / folder / name)) for folder in ("whole", "resumed"))
        assert one == other


def test_what_fails_while_training_again_costs_the_test_of_stability_and_nothing_else(
    study: Make, tested_sites: Path, capsys: Any
) -> None:
    replies = [0]

    def fail_later(reply: Message) -> Message:
        replies[0] += 1
        if replies[0] > 3:  # one alignment round and two of survival are over
            reply.content = pack(Failure(site="coast", failed="FECG-324"))
        return reply

    run = study(fail_later, quorum=3, explain_ecgs=10, explain_seeds=2, folder=tested_sites)
    to_the_end(run)
    entry = read_json(run.folder.path / "explanation.json")
    assert entry["stability"] is None
    assert entry["verdicts"][-1]["sentence"] == "training again failed (FECG-507)"
    assert (
        "Not tested: stability over seeds (training again failed (FECG-507))."
        in entry["captions"]["time attention"]
    )
    assert "training again, seed 1: FECG-507" in capsys.readouterr().err
    assert load_model(run.folder.model).baseline is not None


@pytest.mark.parametrize(
    ("stage", "repeat", "changed", "most"),
    [
        ("survival", 3, {"explain_seeds": 2}, 2),
        ("survival", 1, {"explain_seeds": 0}, 0),
        ("survival", 1, {"explain_seeds": 1, "explain": False}, 0),
        ("align", 1, {"explain_seeds": 1}, 0),
    ],
)
def test_a_site_trains_no_more_often_than_the_settings_of_the_study_say(
    study: Make, sites: Path, stage: Any, repeat: int, changed: dict[str, Any], most: int
) -> None:
    run = study(explain_ecgs=10)
    evaluation = run.settings.evaluation.model_copy(update=changed)
    tree = run.settings.model_copy(update={"evaluation": evaluation}).model_dump(by_alias=True)
    task = TrainTask(**run.consortium.task_fields(stage, 1) | {"settings": tree, "repeat": repeat})
    with pytest.raises(
        FederationError, match=rf"FECG-359 {stage} task: found repetition {repeat}; expected at most {most} "
    ):
        work.train(Workplace(sites / "coast"), task, run._vector(stage))


def test_a_round_with_another_seed_is_another_round_and_that_of_none_the_studys_own(
    study: Make, sites: Path
) -> None:
    run = study(explain_ecgs=10, explain_seeds=2, seeds_from="scratch")
    place, start = Workplace(sites / "coast"), run._vector("align")
    trained = []
    for repeat in (None, 0, 1, 1, 2):
        task = TrainTask(
            **run.consortium.task_fields("align", 1) | ({} if repeat is None else {"repeat": repeat})
        )
        trained.append(work.train(place, task, start)[1])
    bits = [np.asarray(vector).tobytes() for vector in trained]
    assert bits[0] == bits[1]
    assert bits[2] == bits[3]
    assert len({bits[1], bits[2], bits[4]}) == 3


def test_without_seeds_nothing_is_trained_again(study: Make) -> None:
    run = study(explain_ecgs=10, explain_seeds=0)
    run.join()
    run.survive()
    repeats: Repeats = run._repeats()
    assert repeats.models() == ([], "the study trained with one seed alone (evaluation.explain-seeds = 0)")
