"""What a study cannot be is refused before an ECG is prepared: models to begin with, sites too few for an algorithm."""

from pathlib import Path
from typing import Any

import pytest
from tiny_studies import tiny_study

from fedecg.config import StudySettings, parse_settings
from fedecg.errors import FederationError, SettingsError
from fedecg_simulations.beforehand import refuse_impossible, start_of
from fedecg_simulations.cli import main


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("align.start=nowhere", "FECG-306 model folder, model.json: found no such file"),
        ("survival.start=nowhere", "FECG-306 model folder, model.json: found no such file"),
        ("federation.algorithm=krum", "FECG-506 updates for krum: found 3 site(s); expected at least 5"),
    ],
)
def test_a_run_that_cannot_be_ends_before_an_ecg_is_prepared_and_leaves_an_earlier_result(
    override: str, said: str, tmp_path: Path, capsys: Any
) -> None:
    file = tmp_path / "tiny.toml"
    sites = {"city": 90, "coast": 60, "valley": 60}
    file.write_text(tiny_study(tmp_path / "store", data={"sites": sites}))
    out = tmp_path / "out"
    out.mkdir()
    (out / "summary.json").write_text("{}")
    assert main(["run", str(file), "--out", str(out), "--set", override]) in (1, 3)
    assert said in capsys.readouterr().err
    assert not (tmp_path / "store").exists()
    assert sorted(found.name for found in out.iterdir()) == [".lock", "summary.json"]


def settings(**federation: Any) -> StudySettings:
    evaluation = {"leave-one-site-out": federation.pop("leave_one_site_out", False)}
    return parse_settings(StudySettings, {"federation": federation, "evaluation": evaluation})


@pytest.mark.parametrize(
    ("algorithm", "hostile", "least"), [("krum", 1, 5), ("krum", 2, 7), ("trimmed-mean", 2, 5)]
)
def test_the_sites_of_a_round_suffice_for_as_many_hostile_ones(
    algorithm: str, hostile: int, least: int
) -> None:
    chosen = {"algorithm": algorithm, "hostile-sites": hostile}
    refuse_impossible(settings(**chosen), least)
    with pytest.raises(FederationError, match=f"FECG-506 .* found {least - 1} site.* at least {least} "):
        refuse_impossible(settings(**chosen), least - 1)
    with pytest.raises(
        FederationError, match=f"found {least} site"
    ):  # of ten times as many, a tenth takes part
        refuse_impossible(settings(**chosen | {"hostile-sites": hostile + 1}, fraction=0.1), 10 * least)
    with pytest.raises(FederationError, match=f"found {least - 1} site"):  # one is left out
        refuse_impossible(settings(**chosen, leave_one_site_out=True), least)


def said_of(study: StudySettings, sites: int) -> str:
    """The refusal, or nothing."""
    try:
        refuse_impossible(study, sites)
    except FederationError as error:
        return str(error)
    return ""


def test_the_median_of_any_number_of_sites_may_be_asked_for() -> None:
    median = settings(algorithm="median", **{"hostile-sites": 9})
    assert [said_of(median, sites) for sites in (1, 3, 1000)] == ["", "", ""]
    assert "FECG-506" in said_of(settings(algorithm="krum"), 1)


def test_a_study_with_privacy_asks_for_nothing_that_may_not_leave() -> None:
    tree = {"privacy": {"mode": "sample", "sums": "noised"}, "evaluation": {"explain": True}}
    with pytest.raises(SettingsError, match="FECG-560"):
        refuse_impossible(parse_settings(StudySettings, tree), 3)


def test_models_to_begin_with_are_told_apart_by_all_that_decides_whether_they_fit() -> None:
    base = {"align": {"rounds": 0, "start": "a"}}
    trees = [
        base,
        {"align": {"rounds": 0, "start": "b"}},
        {"align": {"rounds": 0}, "survival": {"start": "a"}},
        {**base, "model": {"size": "small"}},
        {**base, "signals": {"samples": 256}},
        {"align": {"rounds": 0, "start": "a", "bank": "other.safetensors"}},
    ]
    starts = [start_of(parse_settings(StudySettings, tree)) for tree in trees]
    assert len(set(starts)) == len(trees)
    assert start_of(parse_settings(StudySettings, {**base, "seed": 4})) == starts[0]
    assert start_of(StudySettings()) == ""
