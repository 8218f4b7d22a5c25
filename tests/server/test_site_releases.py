"""Studies with differential privacy of sites through the real apps: clip, noise, epsilon, kills, few sites."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from study_in_process import Killed, study_over, to_the_end

from fedecg.config import PrivacySettings, StudySettings, load_study
from fedecg.errors import FederationError, PolicyError, RunError
from fedecg.federation.aggregation import update_norm
from fedecg.federation.lock import StudyLock
from fedecg.privacy.accountant import Spend, epsilon_of, least_noise
from fedecg.progress import Progress
from fedecg_client import work
from fedecg_server import site_releases
from fedecg_server import study_state as state_module
from fedecg_server.run_folder import read_json
from fedecg_server.site_releases import FILE, SiteReleases
from fedecg_server.study import Study, run_study

Make = Callable[..., Study]


@pytest.fixture
def make(settings: StudySettings, sites: Path) -> Make:
    """A study in mode client over the consortium's three sites, forced, in a folder that keeps a checkpoint."""

    def made(folder: Path, resumable: bool = True, federation: Any = None, **privacy: Any) -> Study:
        waits = {"quorum": 3, "deadline_s": 5.0, "patience_s": 0.0} | (federation or {})
        chosen = {"mode": "client", "client_force": True, "client_noise": 0.5, "client_clip": 0.05} | privacy
        changed = settings.model_copy(
            update={
                "federation": settings.federation.model_copy(update=waits),
                "evaluation": settings.evaluation.model_copy(update={"explain": False}),
                "survival": settings.survival.model_copy(update={"baseline": "site"}),
                "privacy": settings.privacy.model_copy(update=chosen),
            }
        )
        return study_over(sites, changed, folder, resumable)

    return made


def expected_epsilon(noise: float, releases: int) -> float:
    return epsilon_of([Spend("aggregate", "train", noise, steps=releases)], 1e-5)


def test_a_study_ends_and_tells_epsilon_of_both_stages(make: Make, tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    screen = Console(record=True, width=1000, file=StringIO())
    run_study(run.grid, run.settings, run.folder, Progress(console=screen))
    text, spent = screen.export_text(), expected_epsilon(0.5, 3)
    assert 'warning: privacy.mode = "client" with 3 of at least 50 sites, forced' in text
    assert f"epsilon {spent:.3g} at delta 1e-05 is planned, over 3 aggregates" in text
    assert f"Differential privacy of sites: epsilon {spent:.3g} at delta 1e-05 for a site" in text
    assert "What this does not protect: single patients" in text
    assert "Forced with 3 sites" in text
    assert f"warning: an epsilon of {spent:.3g} bounds hardly anything" in text
    notes = " ".join(read_json(tmp_path / "run" / "status.json")["notes"])
    assert f"epsilon {spent:.3g} at delta 1e-05 is planned" in notes
    assert "bounds hardly anything" in notes
    assert f"An epsilon of {spent:.3g} bounds hardly anything" in text
    for name in ("result.json", "summary.json"):
        told = read_json(tmp_path / "run" / name)["privacy"]
        assert (told["mode"], told["unit"], told["sites"], told["delta"]) == ("client", "site", [], 1e-5)
        assert (told["releases"], told["of-sites"], told["forced"]) == (3, 3, True)
        assert told["epsilon"] == pytest.approx(expected_epsilon(0.5, 3), rel=1e-12)
        assert told["phases"]["align"] == pytest.approx(expected_epsilon(0.5, 1), rel=1e-12)
        assert told["phases"]["survival"] == pytest.approx(expected_epsilon(0.5, 2), rel=1e-12)
    counted = json.loads((tmp_path / "run" / FILE).read_text())["releases"]
    assert [(one["stage"], one["round"], one["noise"]) for one in counted] == [
        ("align", 1, 0.5),
        ("survival", 1, 0.5),
        ("survival", 2, 0.5),
    ]


def aligned(run: Study) -> tuple[np.ndarray, np.ndarray]:
    """Weights before and after the alignment stage, which is one round."""
    run.resume_or_begin()
    run.join()
    run.align()
    assert run.initial is not None
    return run.initial.whole(), run.trained["align"].whole()


def test_a_round_moves_the_weights_by_noise_of_the_stated_size(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Injected generators of known seeds: what is left is the mean of the updates, each at most the clip."""
    monkeypatch.setattr(site_releases, "secret_generator", lambda: np.random.default_rng(5))
    before, after = aligned(make(tmp_path / "run"))
    noise = _drawn(len(before)) * 0.5 * 0.05 / 3
    moved = after.astype(np.float64) - before
    assert np.linalg.norm(moved - noise) < 0.05 * 1.001
    assert np.linalg.norm(moved - noise) > 0.01  # the updates, most of which are clipped, are in it
    assert np.linalg.norm(moved) > 5 * 0.05


def _drawn(size: int) -> np.ndarray:
    """What a generator of that seed gives, block by block."""
    return np.random.default_rng(5).standard_normal(size)


def test_two_runs_of_one_seed_do_not_have_the_same_noise(make: Make, tmp_path: Path) -> None:
    first, second = (aligned(make(tmp_path / name))[1] for name in ("one", "two"))
    assert np.abs(first - second).max() > 0.01


def test_every_site_clips_before_its_update_leaves(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where training explodes: the coordinator gets updates as long as the clip."""
    lengths: list[float] = []
    honest, long = work.encoded, work.to_vector
    trained = {"done": False}

    def exploding(network: Any, names: Any) -> Any:
        return long(network, names) * np.float32(1e6)

    def seen(update: Any, received: Any, transfer: Any) -> Any:
        lengths.append(update_norm(update, received))
        trained["done"] = True
        return honest(update, received, transfer)

    monkeypatch.setattr(work, "to_vector", exploding)
    monkeypatch.setattr(work, "encoded", seen)
    aligned(make(tmp_path / "run"))
    assert trained["done"]
    assert lengths == pytest.approx([0.05] * 3, rel=1e-6)
    assert max(lengths) <= 0.05


def test_the_coordinator_rejects_no_update_because_of_the_others(make: Make, tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    aligned(run)
    assert run.records[0].answered == ["city", "coast", "valley"]
    assert run.norms["align"] == {}


def test_an_aggregate_that_is_made_again_before_the_first_checkpoint_counts_twice(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(site_releases, "noised_mean", _kill)
        with pytest.raises(Killed):
            aligned(make(tmp_path / "run"))
    run = make(tmp_path / "run")
    aligned(run)
    assert [(one.stage, one.round) for one in run.releases.counted] == [("align", 1)] * 2
    assert run.releases.epsilon() == pytest.approx(expected_epsilon(0.5, 2), rel=1e-12)


def _kill(*_: Any) -> None:
    raise Killed


@pytest.mark.slow
@pytest.mark.parametrize("noted", [1, 2, 3])
def test_an_aggregate_that_is_made_again_after_a_kill_counts_twice(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noted: int
) -> None:
    """Killed when the release is on the disk and its checkpoint is not."""
    honest, calls = site_releases.secret_generator, [0]

    def stopping() -> np.random.Generator:
        calls[0] += 1
        if calls[0] == noted:
            raise Killed
        return honest()

    with monkeypatch.context() as patch:
        patch.setattr(site_releases, "secret_generator", stopping)
        with pytest.raises(Killed):
            to_the_end(make(tmp_path / "run"))
    assert len(json.loads((tmp_path / "run" / FILE).read_text())["releases"]) == noted
    told = to_the_end(make(tmp_path / "run"))["privacy"]
    assert told["releases"] == 4
    assert told["epsilon"] == pytest.approx(expected_epsilon(0.5, 4), rel=1e-12)


@pytest.mark.slow
def test_after_a_kill_behind_the_checkpoint_nothing_is_counted_twice(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, calls = state_module.write_state, [0]

    def stopping(*arguments: Any) -> None:
        calls[0] += 1
        honest(*arguments)
        if calls[0] == 3:  # alignment, survey, the first round of survival
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(state_module, "write_state", stopping)
        with pytest.raises(Killed):
            to_the_end(make(tmp_path / "run"))
    assert to_the_end(make(tmp_path / "run"))["privacy"]["releases"] == 3


def test_a_release_that_cannot_be_counted_is_not_made(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    monkeypatch.setattr(site_releases, "secret_generator", lambda: drawn.append(1))
    run = make(tmp_path / "run")
    run.resume_or_begin()
    run.join()
    (tmp_path / "run" / FILE).mkdir(parents=True)  # where the file should be
    with pytest.raises(RunError, match="FECG-601"):
        run.align()
    assert drawn == []
    assert run.releases.counted == []


@pytest.mark.parametrize("damage", [b"{", b'{"releases": []}'])
def test_a_count_that_is_damaged_or_behind_the_checkpoint_stops_the_study(
    make: Make, tmp_path: Path, damage: bytes
) -> None:
    aligned(make(tmp_path / "run"))
    (tmp_path / "run" / FILE).write_bytes(damage)
    with pytest.raises(RunError) as caught:
        make(tmp_path / "run").resume_or_begin()
    found = "0 releases of 1 in the checkpoint" if damage.endswith(b"}") else "ValidationError"
    assert str(caught.value).startswith(f"FECG-546 releases of the run: found {found}; ")
    assert "every aggregate that was made" in str(caught.value)


def test_three_sites_are_too_few_unless_forced(make: Make, tmp_path: Path) -> None:
    run = make(tmp_path / "run", client_force=False)
    run.resume_or_begin()
    with pytest.raises(FederationError, match="FECG-563 sites of a study .* found 3; expected at least 50"):
        run.join()


def test_a_lock_of_few_sites_is_refused_before_anybody_is_greeted(make: Make, tmp_path: Path) -> None:
    run = make(tmp_path / "run", client_force=False)
    run.lock = run.lock.model_copy(update={"sites": [f"site-{number}" for number in range(49)]})
    with pytest.raises(FederationError, match="FECG-563 .* found 49"):
        run.join()
    assert run.consortium.members == {}


def test_a_lock_of_many_sites_divides_by_them_although_three_answer(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site_releases, "secret_generator", lambda: np.random.default_rng(5))
    run = make(tmp_path / "run", client_force=False)
    run.resume_or_begin()
    run.consortium.join()
    run.releases.sites = 100
    run.align()
    assert run.initial is not None
    moved = run.trained["align"].whole().astype(np.float64) - run.initial.whole()
    left = moved - _drawn(len(moved)) * 0.5 * 0.05 / 100
    assert np.linalg.norm(left) <= 3 * 0.05 / 100 * 1.01


def test_a_round_in_which_the_encoder_rests_leaves_it_without_noise(make: Make, tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    frozen = run.settings.survival.model_copy(update={"rounds": 1, "freeze_rounds": 1})
    run.settings = run.settings.model_copy(update={"survival": frozen})
    run.lock = run.lock.model_copy(update={"settings": run.settings.model_dump(by_alias=True)})
    memory = run.memory_of("survival")
    assert memory.site_noise is not None
    rates = [(piece.rate > 0, piece.stop - piece.start) for piece in memory.site_noise.pieces(1)]
    assert {rate for rate, _ in rates} == {True, False}
    run.releases.sites = 3
    sent = np.zeros(rates and sum(size for _, size in rates), np.float32)
    after = memory.next_weights(1, sent, {"city": sent}, {}, {})
    still = np.concatenate([np.full(size, not moves) for moves, size in rates])
    assert not after[still].any()
    assert (after[~still] != 0).mean() > 0.99


def test_every_tensor_that_travels_is_a_weight_which_may_be_noised(make: Make, tmp_path: Path) -> None:
    """No running statistics and no constants."""
    run = make(tmp_path / "run")
    for stage in ("align", "survival"):
        noise = run.memory_of(stage).site_noise
        assert noise is not None
        assert all(piece.parameter for piece in noise.pieces(10**6))


@pytest.mark.slow
def test_a_fraction_of_the_sites_is_counted_as_if_all_took_part(make: Make, tmp_path: Path) -> None:
    run = make(tmp_path / "run", federation={"fraction": 0.5, "quorum": 1})
    told = to_the_end(run)["privacy"]
    assert told["epsilon"] == pytest.approx(expected_epsilon(0.5, 3), rel=1e-12)
    assert [len(record.answered) for record in run.records] == [2, 2, 2]


@pytest.mark.slow
def test_fedadam_steps_on_the_noised_mean_and_costs_nothing_more(make: Make, tmp_path: Path) -> None:
    plain = make(tmp_path / "run", federation={"algorithm": "fedadam"})
    assert to_the_end(plain)["privacy"]["releases"] == 3


def test_a_simulation_counts_in_memory_and_leaves_no_file(make: Make, tmp_path: Path) -> None:
    run = make(tmp_path / "run", resumable=False)
    aligned(run)
    assert len(run.releases.counted) == 1
    assert not (tmp_path / "run" / FILE).exists()


def test_an_epsilon_that_is_asked_for_is_kept_and_everybody_is_told_the_noise(
    make: Make, tmp_path: Path
) -> None:
    """3 means are planned and 1 is in reserve: all 4 keep the epsilon, 3 cost less."""
    run = make(tmp_path / "run", client_epsilon=8.0)
    told = to_the_end(run)["privacy"]
    noise = least_noise(4, 8.0, 1e-5)
    assert told["noise"] == noise > 0.5  # `client-noise` has no say
    assert told["releases"] == 3
    assert told["epsilon"] == pytest.approx(expected_epsilon(noise, 3), rel=1e-12)
    assert 7.99 < expected_epsilon(noise, 4) <= 8.0
    assert {one.noise for one in run.releases.counted} == {noise}
    (line,) = [line for line in run.lock.summary() if line.startswith("Differential privacy of sites")]
    assert f"noise of {noise:.3g} x that" in line
    assert f"with noise of {noise:.3g} x the clip" in run.releases.planned()
    assert not run.releases.weakness()


def test_an_aggregate_beyond_the_epsilon_that_was_asked_for_is_not_made(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    monkeypatch.setattr(site_releases, "secret_generator", lambda: drawn.append(1))
    run = make(tmp_path / "run", client_epsilon=8.0)
    run.resume_or_begin()
    run.join()
    for number in range(4):  # as after kills
        run.releases.count("survival", number)
    with pytest.raises(
        PolicyError, match=r"(?s)FECG-455.*4 noised means, of which one more.*at most 8 together"
    ):
        run.align()
    assert drawn == []
    assert len(run.releases.counted) == 4


def test_an_epsilon_that_no_noise_keeps_is_refused(make: Make, tmp_path: Path) -> None:
    run = make(tmp_path / "run", client_epsilon=1e-4)
    with pytest.raises(
        PolicyError, match=r"(?s)FECG-455.*4 noised means, whatever their noise.*client-epsilon"
    ):
        run.releases.planned()


def test_a_plan_that_hides_hardly_anything_is_told_with_the_noise_that_would(settings: StudySettings) -> None:
    long = settings.model_copy(
        update={
            "align": settings.align.model_copy(update={"rounds": 20}),
            "survival": settings.survival.model_copy(update={"rounds": 20}),
            "evaluation": settings.evaluation.model_copy(update={"explain": False}),
            "privacy": PrivacySettings(mode="client"),
        }
    )
    told = SiteReleases(long).weakness()
    assert "an epsilon of 48.8 bounds hardly anything" in told  # 40 means with the default noise
    assert "privacy.client-epsilon = 8 chooses the noise" in told
    assert "about 4 x the clip" in told
    enough = PrivacySettings(mode="client", client_epsilon=8.0)
    assert not SiteReleases(long.model_copy(update={"privacy": enough})).weakness()


def test_epsilon_of_nothing_is_nought(settings: StudySettings) -> None:
    assert SiteReleases(settings).epsilon() == 0.0


def test_the_site_reads_in_the_lock_what_is_done_to_its_update(make: Make, tmp_path: Path) -> None:
    lock: StudyLock = make(tmp_path / "run").lock
    (line,) = [line for line in lock.summary() if line.startswith("Differential privacy of sites")]
    assert "clipped to a norm of 0.05" in line
    assert "does not protect single patients, nor sums and counts" in line


def test_the_template_names_every_setting_of_the_mode() -> None:
    template = Path(site_releases.__file__).parent / "templates" / "study.toml"
    assert load_study(template).privacy.mode == "none"
    for name in ("client-clip", "client-noise", "client-epsilon", "client-delta", "client-force"):
        assert f"\n{name} = " in template.read_text()
