"""Studies that begin with a network aligned on public patients: whose it is, what it costs, when it is made again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from private_studies import entries_of, settings_of

from fedecg.config import DataSettings, StudySettings
from fedecg.errors import SettingsError
from fedecg.federation.noised import refuse_more_than_noise
from fedecg.model import load_model
from fedecg.progress import Progress
from fedecg_simulations.public import SEED, SITE, from_public, public_study
from fedecg_simulations.runner import run_simulation
from fedecg_simulations.sources import load_dataset

SITES = ("city", "coast")


def study_of(folder: Path, seed: int = 100, **sections: dict[str, Any]) -> StudySettings:
    data = {"public-patients": 30, "aligned": str(folder / "aligned")}
    settings = settings_of(folder / "store", data=data, survival={"rounds": 1}, **sections)
    return settings.model_copy(update={"seed": seed})


def test_the_public_study_has_patients_of_its_own_and_no_privacy(tmp_path: Path) -> None:
    settings = study_of(tmp_path, evaluation={"comparison": True, "leave-one-site-out": True})
    public = public_study(settings, tmp_path / "out")
    assert public.data.sites == {SITE: 30}
    assert (public.seed, public.privacy.mode, public.site_defaults.epsilon) == (SEED, "none", None)
    assert public.align == settings.align
    assert not public.data.public_patients
    ours, theirs = (load_dataset(one).true_log_hazard for one in (settings, public))
    assert ours is not None
    assert theirs is not None
    assert not np.intersect1d(ours, theirs).size


def test_without_a_place_for_it_the_network_stands_in_the_runs_folder(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "store", data={"public-patients": 30})
    assert public_study(settings, tmp_path / "out").data.aligned == str(
        tmp_path / "out" / "columns" / "public"
    )


@pytest.mark.parametrize(
    "sections", [{"data": {}}, {"align": {"rounds": 0}}, {"align": {"start": "runs/elsewhere/model"}}]
)
def test_it_is_made_only_where_there_is_something_to_align_and_no_other_start(
    tmp_path: Path, sections: dict[str, dict[str, Any]]
) -> None:
    data = {} if "data" in sections else {"public-patients": 30}
    assert not from_public(settings_of(tmp_path, **{**sections, "data": data}))
    assert from_public(study_of(tmp_path))


def test_public_patients_are_generated_ones() -> None:
    with pytest.raises(ValueError, match='expected public-patients = 0 unless source = "synthetic"'):
        DataSettings.model_validate({"source": "ptbxl", "public-patients": 5})


def test_aligned_networks_may_be_shared_under_privacy_if_they_are_public_alone(tmp_path: Path) -> None:
    refuse_more_than_noise(study_of(tmp_path))
    with pytest.raises(SettingsError, match=r"FECG-560 .*data.public-patients"):
        refuse_more_than_noise(settings_of(tmp_path, data={"aligned": "runs/aligned"}))


def test_a_study_with_privacy_spends_nothing_on_the_alignment_and_the_next_one_begins_with_the_same_network(
    tmp_path: Path,
) -> None:
    settings = study_of(tmp_path)
    first = run_simulation(settings, tmp_path / "first", Progress())
    assert not first["aligned"]["reused"]
    assert first["rounds"]["align"] == settings.align.rounds
    for site in SITES:
        phases = {entry.purpose.phase for entry in entries_of(tmp_path / "first" / "sites" / site)}
        assert phases == {"survey", "survival", "evaluate"}
    other = study_of(tmp_path, seed=101, **{"site-defaults": {"epsilon": 50.0}})
    second = run_simulation(other, tmp_path / "second", Progress())
    assert second["aligned"]["reused"]
    assert second["aligned"]["network"] == first["aligned"]["network"]
    aligned = load_model(tmp_path / "aligned" / first["aligned"]["network"] / "model").network
    ours = load_model(tmp_path / "second" / "model").network
    for name, tensor in aligned.projection.state_dict().items():  # survival training leaves it alone
        assert tensor.equal(ours.projection.state_dict()[name])
