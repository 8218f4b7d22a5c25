"""Whole tiny studies with differential privacy in which workers die after they have paid, or ledgers are put back."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from private_studies import EPSILON, entries_of, result_of, run, settings_of, sites_of

from fedecg.config import StudySettings, load_site
from fedecg.errors import FederationError, RunError
from fedecg.federation.documents import LedgerHead
from fedecg.federation.noised import evaluate_spends, survey_spends, train_spends
from fedecg.privacy.accountant import Plan, Spend, planned_noise
from fedecg.privacy.ledger import Purpose
from fedecg.progress import Progress
from fedecg_client.budget import spend_here
from fedecg_server.heads import FILE, farther, keep_heads, read_heads
from fedecg_server.run_folder import RunFolder
from fedecg_server.study import Study

SITES = ("city", "coast")
Meddle = Callable[[str, str], None]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store, and site folders whose ledgers are new."""
    folder = tmp_path_factory.mktemp("repeated")
    return folder / "store", sites_of(settings_of(folder / "store"), folder / "sites")


@pytest.fixture
def sites(prepared: tuple[Path, Path]) -> Path:
    """The same with ledgers that are new again."""
    for file in prepared[1].glob("*/ledger.*"):
        file.unlink()
    return prepared[1]


def study(prepared: tuple[Path, Path], reserve: int) -> StudySettings:
    survival = {"rounds": 1}
    return settings_of(prepared[0], survival=survival, align={"rounds": 0}, privacy={"reserve": reserve})


def dying(sites: Path, settings: StudySettings, times: int, kinds: tuple[str, ...]) -> Meddle:
    """Before a task is done, write what it costs so often: as a worker does that is killed each time after it paid."""
    noise = planned_noise(Plan.of(settings), EPSILON, 1e-5)
    seen: Counter[tuple[str, str]] = Counter()

    def costs(site: str, kind: str) -> list[Spend]:
        if kind == "query.survey":
            return survey_spends(noise)
        if kind == "train":
            return train_spends(settings, "survival", 1, noise)
        return evaluate_spends(["validation"], noise, look=True)  # the first of its kind

    def die(site: str, kind: str) -> None:
        seen[site, kind] += 1
        if site == "coast" and kind in kinds and seen[site, kind] == 1:
            own = load_site(sites / site / "site.toml")
            run_name = json.loads((sites.parent / "out" / "run" / "status.json").read_text())["run"]
            for _ in range(times):
                spend_here(sites / site, own, Purpose(settings.name, run_name, kind, 1), costs(site, kind))

    return die


@pytest.fixture
def out(sites: Path) -> Path:
    """A coordinator's folder, which is new."""
    folder = sites.parent / "out"
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def test_workers_that_died_once_after_they_had_paid_cost_no_site_its_study(
    prepared: tuple[Path, Path], sites: Path, out: Path
) -> None:
    settings = study(prepared, reserve=1)
    run(settings, sites, out / "run", dying(sites, settings, 1, ("query.survey", "train", "evaluate")))
    result = result_of(out / "run")
    assert result["status"] == "completed"
    told = {site["name"]: site for site in result["privacy"]["sites"]}
    spent = {site: sum(one.spend.steps for one in entries_of(sites / site)) for site in SITES}
    assert spent["coast"] > spent["city"]  # its own ledger knows what no reply has told
    assert told["coast"]["epsilon"] <= EPSILON


def test_without_a_reserve_the_site_is_lost(prepared: tuple[Path, Path], sites: Path, out: Path) -> None:
    settings = study(prepared, reserve=0)
    run(settings, sites, out / "run", dying(sites, settings, 1, ("train",)))
    result = result_of(out / "run")
    assert result["status"] == "completed-partial"
    rejected = [record["rejected"] for record in json.loads((out / "run" / "rounds.json").read_text())]
    assert {"coast": "FECG-434"} in rejected


@pytest.mark.slow
def test_a_reserve_is_not_more_than_it_says(prepared: tuple[Path, Path], sites: Path, out: Path) -> None:
    settings = study(prepared, reserve=1)
    run(settings, sites, out / "run", dying(sites, settings, 3, ("train",)))
    assert result_of(out / "run")["status"] == "completed-partial"


def test_a_ledger_that_is_put_back_between_two_runs_is_noticed_by_the_coordinators_memory(
    prepared: tuple[Path, Path], sites: Path, out: Path
) -> None:
    settings = study(prepared, reserve=0)
    run(settings, sites, out / "run", resumable=True)
    assert {site: head.sequence for site, head in read_heads(out).items()} == {
        site: len(entries_of(sites / site)) for site in SITES
    }
    for file in sites.glob("*/ledger.*"):
        file.unlink()
    shutil.move(out / "run", out / "run-before")
    with pytest.raises(FederationError, match=r"FECG-507[\s\S]*FECG-435"):
        run(settings, sites, out / "run", resumable=True)
    (out / FILE).unlink()  # nobody remembers
    shutil.rmtree(out / "run")
    run(settings, sites, out / "run", resumable=True)
    assert result_of(out / "run")["status"] == "completed"


def test_heads_are_kept_as_far_as_they_were_seen(tmp_path: Path) -> None:
    assert read_heads(tmp_path) == {}
    near, far = (LedgerHead(sequence=number, sha256=digit * 64) for number, digit in ((3, "a"), (7, "b")))
    keep_heads(tmp_path, {"b": near, "a": far})
    assert read_heads(tmp_path) == {"a": far, "b": near}
    assert farther({"a": near, "b": far}, {"a": far, "b": near, "c": near}) == {"a": far, "b": far, "c": near}


def test_a_study_is_told_of_its_own_sites_heads_and_forgets_nobody_elses(
    prepared: tuple[Path, Path], out: Path
) -> None:
    near, far = (LedgerHead(sequence=number, sha256=digit * 64) for number, digit in ((3, "a"), (7, "b")))
    keep_heads(out, {"city": near, "of another study": far})
    grid: Any = None
    begun = Study(
        grid, study(prepared, 0), RunFolder(out / "run", resumable=True), Progress(), lambda: {1: "city"}
    )
    begun.resume_or_begin()
    assert begun.consortium.task_fields("survival", 0)["ledger"] == {"city": near}
    begun.consortium.keep_ledgers({"city": far})
    assert read_heads(out) == {"city": far, "of another study": far}


@pytest.mark.parametrize("content", ["", "{", '{"heads": {"a": {"sequence": "many"}}}', "[]"])
def test_heads_that_cannot_be_read_stop_a_study_before_it_begins(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(RunError, match=r"FECG-547 ledger-heads.json: found a file that cannot be used"):
        read_heads(tmp_path)
