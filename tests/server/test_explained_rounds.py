"""Is the attention true, asked through the real apps: pooled and federated agree, bad replies are left out."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from fedecg.cohort import read_cohort, write_cohort
from fedecg.explanation import attend, faithfulness, faithfulness_sums
from fedecg.explanation.documents import ExplainReply, GroupDocument
from fedecg.federation.messages import pack, unpack
from fedecg.federation.tasks import Failure
from fedecg.model import load_model
from fedecg.report.faithfulness_report import faithfulness_section
from fedecg.text import load_bank
from fedecg.training import SiteData, load_site_data
from fedecg_server.run_folder import read_json
from fedecg_server.study import Study

Make = Callable[..., Study]
ALL = 100  # more than any site's test part has


def finished(run: Study) -> tuple[dict[str, Any], dict[str, Any]]:
    """The result and the explanation of a study without an alignment stage."""
    run.join()
    result = run.conclude(*run.survive())
    file = run.folder.path / "explanation.json"
    return result, read_json(file) if file.exists() else {}


def with_arrays(
    change: Callable[[dict[str, list[float]]], dict[str, list[float]]],
) -> Callable[[Message], Message]:
    def tamper(reply: Message) -> Message:
        document, _ = unpack(reply.content, ExplainReply)
        arrays = {**document.arrays, **change(document.arrays)}
        reply.content = pack(document.model_copy(update={"arrays": arrays}))
        return reply

    return tamper


def with_groups(change: Callable[[GroupDocument], dict[str, Any]]) -> Callable[[Message], Message]:
    def tamper(reply: Message) -> Message:
        document, _ = unpack(reply.content, ExplainReply)
        (name, group), *_ = document.groups.items()
        groups = {**document.groups, name: group.model_copy(update=change(group))}
        reply.content = pack(document.model_copy(update={"groups": groups}))
        return reply

    return tamper


def fail(reply: Message) -> Message:
    reply.content = pack(Failure(site="coast", failed="FECG-517"))
    return reply


def data_of(run: Study, folder: Path) -> list[SiteData]:
    bank = load_bank(run.settings.align.bank)
    files = sorted(folder.glob("*/site.toml"))
    return [load_site_data(file.parent, run.settings, bank) for file in files]


def test_sums_of_three_sites_through_the_apps_are_those_of_their_pooled_ecgs(
    study: Make, tested_sites: Path
) -> None:
    run = study(explain_ecgs=ALL, folder=tested_sites)
    result, entry = finished(run)
    assert result["status"] == "completed"
    settings, data = run.settings, data_of(run, tested_sites)
    signal = np.concatenate([site.signals(site.rows("test")).numpy() for site in data])
    time = np.concatenate([site.follow_up_days(site.rows("test")) for site in data])
    event = np.concatenate([site.events(site.rows("test")) for site in data])
    pooled = faithfulness(
        faithfulness_sums(load_model(run.folder.model).network, signal, time, event, settings.seed)
    )
    assert entry["part"] == "test"
    assert entry["ecgs"] == len(signal) == sum(entry["sites"].values()) == 90
    for name, one in (("time", pooled.time), ("leads", pooled.leads)):
        assert entry[name]["distance"] == pytest.approx(one.distance, abs=1e-6)
        assert entry[name]["similarity"] == pytest.approx(one.similarity, abs=1e-6)
        assert entry[name]["p-value"] == pytest.approx(one.p_value)
    hidden = pooled.occlusion
    np.testing.assert_allclose(entry["occlusion"]["moved"], hidden.moved, atol=1e-5)
    np.testing.assert_allclose(entry["occlusion"]["shift"], hidden.shift, atol=1e-5)
    np.testing.assert_allclose(entry["occlusion"]["bars"], hidden.bars, atol=1e-6)
    for order in (0, 2):  # the random order is each site's own
        np.testing.assert_allclose(
            entry["deletion"]["deletion"][order], pooled.deletion.deletion[order], atol=1e-4
        )
    assert entry["verdicts"][0]["sentence"] == pooled.verdicts[0].sentence
    assert entry["occlusion"]["events"] == int(event.sum())


def test_a_site_tests_no_more_ecgs_than_it_is_asked_for(study: Make, tested_sites: Path) -> None:
    _, entry = finished(study(explain_ecgs=11, folder=tested_sites))
    assert set(entry["sites"].values()) == {11}


def test_groups_through_the_apps_are_means_over_the_patients_of_every_site(
    study: Make, tested_sites: Path
) -> None:
    run = study(explain_ecgs=10, folder=tested_sites)
    _, entry = finished(run)
    network = load_model(run.folder.model).network
    cuts = entry["groups"]
    assert {"high risk", "low risk"} & set(cuts)
    everywhere = [
        name for name, one in cuts.items() if one["sites"] == 3 and name not in ("high risk", "low risk")
    ]
    assert everywhere  # sinus rhythm, at least
    for name in everywhere:
        signals, codes = [], []
        for site in data_of(run, tested_sites):
            rows = site.rows("test")
            signals.append(site.signals(rows).numpy())
            codes += [site.cohort.codes[row] for row in rows]
        members = np.array([name in row for row in codes])
        leads = attend(network, np.concatenate(signals)[members]).leads.mean(axis=0)
        assert cuts[name]["ecgs"] == members.sum()
        np.testing.assert_allclose(cuts[name]["leads"], leads, atol=1e-4)


def few(folder: Path, target: Path, left: int) -> Path:
    """The same consortium, but the site `coast` has so many test patients."""
    for site in folder.iterdir():
        shutil.copytree(site, target / site.name)
        file = target / site.name / "site.toml"
        store = next((folder.parent / "store").glob("*/store.json")).parent
        file.write_text(re.sub(r"store = .*", f'store = "{store}"', file.read_text()))
    table = target / "coast" / "cohort.csv"
    cohort = read_cohort(table)
    kept = np.ones(len(cohort), dtype=np.bool_)
    kept[np.flatnonzero(cohort.part == "test")[left:]] = False
    write_cohort(cohort.select(kept), table)
    return target


@pytest.mark.parametrize("left", [1, 9, 10])
def test_of_fewer_than_ten_patients_no_number_leaves_the_site(
    study: Make, tested_sites: Path, tmp_path: Path, left: int
) -> None:
    """With one patient, `occlusion.bars` would be that patient's own map."""
    replies: list[ExplainReply] = []

    def overhear(reply: Message) -> Message:
        replies.append(unpack(reply.content, ExplainReply)[0])
        return reply

    folder = few(tested_sites, tmp_path / "few", left)
    result, entry = finished(study(overhear, kind="query.explain", explain_ecgs=ALL, folder=folder))
    assert result["status"] == "completed"
    (reply,) = replies
    said = any(reply.pairs) or any(any(column) for column in reply.arrays.values())
    assert said is (left >= 10)
    assert not reply.groups  # those of ten differ from the tested ten in fewer than ten
    assert entry["sites"]["coast"] == (left if left >= 10 else 0)
    line = faithfulness_section(entry, simulated=True).sentences[0]
    assert line.endswith("Not tested, too few patients (below 10): coast.") is (left < 10)


def test_nothing_is_asked_where_the_study_does_not_want_it(study: Make) -> None:
    result, entry = finished(study(fail, kind="query.explain"))
    assert result["status"] == "completed"
    assert not entry


@pytest.mark.parametrize(
    ("tamper", "code"),
    [
        (fail, "FECG-517"),
        (with_arrays(lambda _: {"randomisation.distance": [1.0]}), "FECG-503"),
        (with_arrays(lambda _: {"occlusion.ecgs": [99.0]}), "FECG-527"),
        (
            with_arrays(
                lambda _: {f"{part}.ecgs": [99.0] for part in ("randomisation", "deletion", "occlusion")}
            ),
            "FECG-515",
        ),
        (
            with_arrays(
                lambda _: {f"{part}.ecgs": [9.0] for part in ("randomisation", "deletion", "occlusion")}
            ),
            "FECG-358",
        ),
        (with_groups(lambda group: {"ecgs": group.ecgs + 1}), "FECG-527"),
        (with_groups(lambda _: {"ecgs": 9}), "FECG-358"),
        (with_groups(lambda group: {"leads": group.leads[1:]}), "FECG-503"),
        (with_arrays(lambda arrays: {"deletion.area": [x + 5 for x in arrays["deletion.area"]]}), "FECG-527"),
    ],
)
def test_a_tampered_reply_is_left_out_and_named(
    study: Make, tested_sites: Path, tamper: Callable[[Message], Message], code: str
) -> None:
    result, entry = finished(study(tamper, kind="query.explain", explain_ecgs=10, folder=tested_sites))
    assert result["refused"] == {"coast": code}
    assert result["status"] == "completed-partial"
    assert list(entry["sites"]) == ["city", "valley"]


def test_below_the_quorum_the_tests_are_missing_and_the_model_is_not(study: Make, capsys: Any) -> None:
    run = study(fail, kind="query.explain", explain_ecgs=10, quorum=3)
    result, entry = finished(run)
    assert result["status"] == "completed-partial"
    assert not entry
    assert "no answers to explain: FECG-507" in capsys.readouterr().err
    assert load_model(run.folder.model).baseline is not None
    assert (run.folder.path / "assessment.json").exists()
    assert not (run.folder.model / "explanation.json").exists()


def test_late_entries_leave_their_site_out_as_in_the_assessment(
    study: Make, sites: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "late"
    store = next((sites.parent / "store").glob("*/store.json")).parent
    for site in sites.iterdir():
        shutil.copytree(site, folder / site.name)
        file = folder / site.name / "site.toml"
        file.write_text(re.sub(r"store = .*", f'store = "{store}"', file.read_text()))
    table = folder / "coast" / "cohort.csv"
    cohort = read_cohort(table)
    write_cohort(
        replace(cohort, entry_days=np.where(cohort.part == "test", cohort.follow_up_days / 2, 0.0)), table
    )
    result, entry = finished(study(folder=folder, explain_ecgs=10))
    assert result["refused"] == {"coast": "FECG-517"}
    assert list(entry["sites"]) == ["city", "valley"]
