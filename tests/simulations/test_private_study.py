"""Whole tiny studies with differential privacy: what leaves, what it costs, what is refused, and how it ends."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from private_studies import EPSILON, Left, entries_of, result_of, run, set_budget, settings_of, sites_of

from fedecg.config import SiteDefaults, StudySettings
from fedecg.errors import FederationError, ModelError, SettingsError
from fedecg.federation.noised import noised_edges
from fedecg.model import load_model
from fedecg.privacy.accountant import Plan, epsilon_of, planned_noise
from fedecg_simulations.cli import main

SITES = ("city", "coast")
# What a reply may say that depends on no patient: names, hashes, and what follows from lock, site.toml and ledger.
PUBLIC = {"site", "round", "code-fingerprint", "lock-sha256", "budget", "ledger", "spends", "steps"}
NOTHING: tuple[Any, ...] = (None, 0, {}, [])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def prepared(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Site folders whose ledgers are new."""
    return sites_of(settings_of(store), tmp_path_factory.mktemp("prepared") / "sites")


@pytest.fixture
def sites(prepared: Path, tmp_path: Path) -> Path:
    """A copy of them."""
    folder = tmp_path / "sites"
    for site in SITES:
        (folder / site).mkdir(parents=True)
        shutil.copy(prepared / site / "cohort.csv", folder / site)
        text = (prepared / site / "site.toml").read_text()
        old = next(line for line in text.splitlines() if line.startswith("store"))
        path = (prepared / site / old.split('"')[1]).resolve()
        (folder / site / "site.toml").write_text(text.replace(old, f'store = "{path}"'))
    return folder


@pytest.fixture(scope="module")
def finished(store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[StudySettings, Path, list[Left]]:
    """A study that has ended well, its folder, and all that has left its sites."""
    settings, folder = settings_of(store), tmp_path_factory.mktemp("finished")
    left = run(settings, sites_of(settings, folder / "sites"), folder / "run")
    return settings, folder, left


Finished = tuple[StudySettings, Path, list[Left]]


def data_of(document: dict[str, Any]) -> dict[str, Any]:
    """What is in a reply beside public things and nothing, by its path."""
    found: dict[str, Any] = {}
    for key, value in document.items():
        if key in PUBLIC or value in NOTHING:
            continue
        if key in ("noised", "cells"):
            found |= {f"{key}.{name}": inner for name, inner in data_of(value).items()}
        else:
            found[key] = value
    return found


def test_exactly_four_kinds_of_thing_leave(finished: Finished) -> None:
    settings, _, left = finished
    kinds = Counter()
    bins = len(noised_edges(settings))
    for _, _, document, vector in left:
        data = data_of(document)
        for key, value in data.items():
            assert all(isinstance(number, float) and number != round(number) for number in value), key
            assert len(value) in (bins, 8 * 8 * 2) or len(value) % 16 == 0
        kinds[tuple(sorted(data)) + (("update",) if vector is not None else ())] += 1
    hazard = "noised.train-exp-sums"
    assert kinds == {
        (): 2,  # joined: a name and a budget, no counts
        ("train-events", "train-exp-sums"): 2,  # (ii), (iii)
        ("update",): 2 * (1 + 2),  # (i): alignment, survival rounds 1 and 2
        (hazard, "update"): 2,  # (i), (iii): round 3
        ("cells.validation",): 2,  # (iv): a look
        ("cells.validation", "validation-events", "validation-exp-sums"): 2,  # (ii), (iii), (iv)
        ("cells.test",): 2,  # (iv)
    }


def test_the_ledger_holds_the_plan_and_no_more(finished: Finished) -> None:
    settings, folder, _ = finished
    noise = planned_noise(Plan.of(settings), EPSILON, 1e-5)
    planned = Plan.of(settings).spends(noise)
    for site in SITES:
        steps: Counter[tuple[str, str, float, float]] = Counter()
        entries = entries_of(folder / "sites" / site)
        for spend in (entry.spend for entry in entries):
            steps[(spend.mechanism, spend.part, spend.noise_multiplier, spend.sampling_rate)] += spend.steps
        assert steps == {
            (one.mechanism, one.part, one.noise_multiplier, one.sampling_rate): one.steps for one in planned
        }
        train = [entry.spend for entry in entries if entry.spend.part == "train"]
        assert 0.99 * EPSILON < epsilon_of(train, 1e-5) <= EPSILON
        assert {entry.purpose.study for entry in entries} == {"private"}


def test_the_result_says_what_each_site_has_spent_by_phase(finished: Finished) -> None:
    _, folder, _ = finished
    result = result_of(folder / "run")
    privacy = result["privacy"]
    assert (privacy["mode"], privacy["unit"], [site["name"] for site in privacy["sites"]]) == (
        "sample",
        "patient",
        list(SITES),
    )
    for site in privacy["sites"]:
        assert 0.99 * EPSILON < site["epsilon"] <= site["budget"] == EPSILON
        assert site["delta"] == 1e-5
        assert set(site["phases"]) == {"align", "survival", "evaluate"}
        assert max(site["phases"].values()) <= EPSILON < sum(site["phases"].values())
        spends = [entry.spend for entry in entries_of(folder / "sites" / site["name"])]
        for part, epsilon in site["parts"].items():
            assert epsilon == pytest.approx(epsilon_of([one for one in spends if one.part == part], 1e-5))
    assert result["status"] == "completed"
    assert result["best-round"] == 3
    assert result["sites"][0] == {"name": "city", "patients": None, "events": None, "parts": {}}


def test_both_indices_come_without_bounds_and_with_an_interval(finished: Finished) -> None:
    _, folder, _ = finished
    for figures in result_of(folder / "run")["evaluation"].values():
        assert figures["bounds"] is figures["lower"] is figures["upper"] is None
        for index, low, high in (
            (figures["global"], figures["ci-low"], figures["ci-high"]),
            (figures["stratified"], figures["stratified-ci-low"], figures["stratified-ci-high"]),
        ):  # of so few patients noise may leave no index; then the interval is all of it
            assert (low, high) == (0, 1) if index is None else 0 <= low <= index <= high <= 1
        assert figures["noised"]
        assert figures["few-events"]


def test_the_model_ships_with_a_baseline_that_does_not_fall(finished: Finished) -> None:
    settings, folder, _ = finished
    baseline = load_model(folder / "run" / "model").baseline
    assert baseline is not None
    assert baseline.edges_days == noised_edges(settings).tolist()
    assert np.all(np.diff(baseline.cumulative_hazard) >= 0)
    assert np.all(np.diff(baseline.variance) >= 0)
    assert baseline.variance[-1] > 0


def test_the_coordinator_writes_down_no_loss_and_no_count_of_a_site(finished: Finished) -> None:
    _, folder, _ = finished
    for record in json.loads((folder / "run" / "rounds.json").read_text()):
        assert record["loss"] == {}
        assert record["validation"] is None
        assert record["alignment"] == {}
        assert set(record["spends"]) == set(SITES)


@pytest.mark.slow
def test_noise_is_new_in_every_run_of_the_same_seed(store: Path, finished: Finished, tmp_path: Path) -> None:
    settings, _, left = finished
    again = run(settings, sites_of(settings, tmp_path / "sites"), tmp_path / "run")
    for (*_, first, vector), (*_, second, other) in zip(left, again, strict=True):
        mine, theirs = data_of(first), data_of(second)
        assert all(not set(mine[key]) & set(theirs[key]) for key in mine)
        assert vector is None or not np.array_equal(vector, other)


@pytest.mark.slow
def test_another_run_on_the_same_patients_does_not_fit_into_the_budget(
    store: Path, sites: Path, tmp_path: Path
) -> None:
    settings = settings_of(store)
    run(settings, sites, tmp_path / "first")
    with pytest.raises(FederationError, match=r"FECG-507[\s\S]*FECG-437") as refused:
        run(settings, sites, tmp_path / "second")
    assert refused.value.code == "FECG-507"
    for site in SITES:
        set_budget(sites / site, SiteDefaults(epsilon=500.0, delta=1e-5))
    run(settings, sites, tmp_path / "third")
    assert all(
        500.0 >= site["epsilon"] > EPSILON for site in result_of(tmp_path / "third")["privacy"]["sites"]
    )


def test_a_site_without_epsilon_refuses_and_the_others_go_on(
    store: Path, sites: Path, tmp_path: Path
) -> None:
    set_budget(sites / "coast", None)
    left = run(settings_of(store), sites, tmp_path / "run")
    result = result_of(tmp_path / "run")
    assert result["status"] == "completed-partial"
    assert set(result["refused"].values()) == {"FECG-438"}
    assert [site["name"] for site in result["privacy"]["sites"]] == ["city"]
    assert {site for site, *_ in left if site == "coast"} == {"coast"}
    assert not (sites / "coast" / "ledger.sqlite").exists()


def test_a_budget_that_is_cut_in_the_middle_refuses_before_anything_is_computed(
    store: Path, sites: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[str] = []
    from fedecg_client import noised

    real = noised.train_survival

    def watched(network: Any, site: Any, *rest: Any, **named: Any) -> Any:
        computed.append(site.name)
        return real(network, site, *rest, **named)

    monkeypatch.setattr(noised, "train_survival", watched)
    rounds: Counter[str] = Counter()

    def cut(site: str, kind: str) -> None:
        rounds[site] += kind == "train"
        if site == "coast" and rounds[site] == 3 and kind == "train":  # survival round 2
            set_budget(sites / site, SiteDefaults(epsilon=1.0, delta=1e-5))

    run(settings_of(store), sites, tmp_path / "run", cut)
    assert computed.count("city") == 3
    assert computed.count("coast") == 1
    result = result_of(tmp_path / "run")
    assert result["status"] == "completed-partial"
    rejected = [record["rejected"] for record in json.loads((tmp_path / "run" / "rounds.json").read_text())]
    assert rejected[2:4] == [{"coast": "FECG-434"}] * 2
    assert len(entries_of(sites / "coast")) == 4  # alignment, both sums of the survey, survival round 1


def test_a_study_of_which_all_budgets_are_cut_ends_with_a_code(
    store: Path, sites: Path, tmp_path: Path
) -> None:
    def cut(site: str, kind: str) -> None:
        if kind == "query.survey":
            set_budget(sites / site, SiteDefaults(epsilon=0.5, delta=1e-5))

    with pytest.raises(FederationError, match=r"FECG-507[\s\S]*FECG-434"):
        run(settings_of(store), sites, tmp_path / "run", cut)
    assert json.loads((tmp_path / "run" / "failed.json").read_text())["code"] == "FECG-507"


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"evaluation": {"explain": True}}, "evaluation.explain = false"),
        ({"evaluation": {"baselines": True}}, "evaluation.baselines = false"),
        ({"data": {"aligned": "runs/aligned"}}, 'data.aligned = ""'),
    ],
)
def test_what_asks_for_more_than_noise_is_refused_at_the_start(
    store: Path, tmp_path: Path, sections: dict[str, dict[str, Any]], said: str
) -> None:
    with pytest.raises(SettingsError, match="FECG-560") as refused:
        run(settings_of(store, **sections), tmp_path, tmp_path / "run")
    assert said in str(refused.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("loss", ["cox-batch", "cox-site"])
def test_a_loss_that_is_no_sum_over_patients_is_refused_at_the_start(
    store: Path, tmp_path: Path, loss: str
) -> None:
    settings = settings_of(store)
    survival = settings.survival.model_copy(update={"loss": loss})  # past the check of study files
    with pytest.raises(ModelError, match="FECG-386"):
        run(settings.model_copy(update={"survival": survival}), tmp_path, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("survival", [{"baseline": "site"}, {"loss": "grouped"}, {"alignment": 0.3}])
def test_other_losses_that_are_sums_run_too(
    store: Path, sites: Path, tmp_path: Path, survival: dict[str, Any]
) -> None:
    left = run(settings_of(store, survival={"rounds": 1, **survival}), sites, tmp_path / "run")
    assert result_of(tmp_path / "run")["status"] == "completed"
    assert not any("failed" in document for _, _, document, _ in left)


@pytest.mark.slow
def test_a_study_that_takes_entry_times_pays_for_them_with_noise(
    store: Path, sites: Path, tmp_path: Path
) -> None:
    cohort = sites / "city" / "cohort.csv"
    lines = cohort.read_text().splitlines()
    header = lines[0].split(",")
    rows = [line.split(",") for line in lines[1:]]
    if "entry_days" not in header:
        header, rows = [*header, "entry_days"], [[*row, "0.0"] for row in rows]
    at, end = header.index("entry_days"), header.index("follow_up_days")
    rows[0][at] = str(float(rows[0][end]) / 2)
    cohort.write_text("\n".join(",".join(row) for row in [header, *rows]) + "\n")
    survival = {"rounds": 1}
    run(settings_of(store, survival=survival), sites, tmp_path / "without")
    records = json.loads((tmp_path / "without" / "rounds.json").read_text())
    assert all(record["rejected"] == {"city": "FECG-440"} for record in records)
    assert entries_of(sites / "city") == ()
    for site in SITES:  # coast has spent on the run before
        set_budget(sites / site, SiteDefaults(epsilon=500.0, delta=1e-5))
    run(settings_of(store, survival=survival, privacy={"entry-times": True}), sites, tmp_path / "with")
    assert result_of(tmp_path / "with")["status"] == "completed"


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_a_site_whose_table_has_a_patient_twice_refuses_before_it_pays(
    store: Path, sites: Path, tmp_path: Path, part: str
) -> None:
    """Each sum would refuse it, too: after it was paid for, in every round anew."""
    cohort = sites / "city" / "cohort.csv"
    header, *lines = cohort.read_text().splitlines()
    names = header.split(",")
    rows = [line.split(",", len(names) - 1) for line in lines]
    first, second = [row for row in rows if row[names.index("part")] == part][:2]
    second[names.index("patient")] = first[names.index("patient")]
    cohort.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
    run(settings_of(store, align={"rounds": 0}, survival={"rounds": 1}), sites, tmp_path / "run")
    records = json.loads((tmp_path / "run" / "rounds.json").read_text())
    assert {code for record in records for code in record["rejected"].values()} == {"FECG-439"}
    assert entries_of(sites / "city") == ()
    assert result_of(tmp_path / "run")["status"] == "completed-partial"


@pytest.mark.slow
def test_a_simulation_prints_and_shows_what_was_spent(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_of(store, survival={"rounds": 1})
    file = tmp_path / "private.toml"
    file.write_text(tomli_w.dumps(settings.model_dump(by_alias=True, exclude_none=True)))
    assert main(["run", str(file), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "Epsilon that the sites have spent" in printed
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    privacy = summary["privacy"]
    assert privacy["mode"] == "sample"
    assert [site["name"] for site in privacy["sites"]] == list(SITES)
    for site in privacy[
        "sites"
    ]:  # what the site's own ledger says, of the part about which most was released
        spends = [entry.spend for entry in entries_of(tmp_path / "out" / "sites" / site["name"])]
        parts = [[one for one in spends if one.part == part] for part in ("train", "validation", "test")]
        assert site["delta"] == 1e-5
        assert site["epsilon"] == pytest.approx(max(epsilon_of(some, 1e-5) for some in parts))
        for phase, epsilon in site["phases"].items():
            assert f"{phase}" in printed
            assert f"{epsilon:.3g}" in printed
    assert summary["sites"][0]["patients"] > 0  # a simulation knows them from elsewhere
    report = (tmp_path / "out" / "report.html").read_text()
    assert "of 200 at delta 1e-05" in report
    assert "Intervals of C include the noise" in report
    assert "events and clipped hazards by time bin" in report
