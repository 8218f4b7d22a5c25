"""What a simulated study cannot be, said before its ECGs are prepared and anything is trained.

In:  settings, and how many virtual sites there are. Out: nothing, or a refusal.
Called by the runner, and by a grid for each of its cells before the first one runs.
"""

from __future__ import annotations

from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from fedecg.config import StudySettings
from fedecg.errors import RunError, SettingsError
from fedecg.federation.aggregation import refuse_too_few
from fedecg.federation.few_sites import refuse_few_sites
from fedecg.federation.noised import refuse_more_than_noise
from fedecg.federation.participation import number_taking_part
from fedecg.model import build_network, load_aligned, load_finished
from fedecg.model.package import SETTINGS
from fedecg.text import load_bank

__all__ = ["refuse_impossible", "refuse_wrong_start", "start_of", "starts_sha256"]


def refuse_impossible(settings: StudySettings, sites: int) -> None:
    """Virtual sites are all there from the start: waiting for more would be in vain.

    Raises:
        SettingsError: FECG-107; FECG-110 a single site cannot be left out; FECG-560. ModelError: FECG-386.
        RunError: FECG-603 Ray is asked for and not installed. TextError: FECG-241 no such bank.
        FederationError: FECG-563, FECG-506 too few sites a round for what is to hold against hostile ones.
    """
    refuse_more_than_noise(settings)
    load_bank(settings.align.bank)
    if settings.federation.backend == "ray" and find_spec("ray") is None:
        raise RunError(
            "FECG-603",
            "backend",
            found="ray is not installed",
            expected='federation.backend = "in-process"',
            fix="Or: pip install 'fedecg[ray]'.",
        )
    refuse_few_sites(settings, sites)
    if settings.federation.quorum > sites:
        raise SettingsError(
            "FECG-107",
            "federation.quorum",
            found=f"{settings.federation.quorum} with {sites} virtual site(s)",
            expected=f"at most {sites}",
            fix="Lower it with --set federation.quorum=1.",
        )
    if settings.evaluation.leave_one_site_out and sites < 2:
        raise SettingsError(
            "FECG-110",
            "evaluation.leave-one-site-out",
            found=f"{sites} virtual site(s)",
            expected="at least 2: the others train",
            fix="Set it to false.",
        )
    fewest = sites - 1 if settings.evaluation.leave_one_site_out else sites
    federation = settings.federation
    refuse_too_few(number_taking_part(fewest, federation), federation.hostile_sites, federation.algorithm)


def start_of(settings: StudySettings) -> str:
    """All that decides whether the study can begin with the model that it names; "" where it names none."""
    if not (settings.align.start or settings.survival.start):
        return ""
    sections = settings.model_dump(include={"model", "signals"})
    return repr((settings.align.start, settings.survival.start, settings.align.bank, sections))


def starts_sha256(settings: StudySettings) -> dict[str, str]:
    """Setting -> sha256 of the model that it names: settings name a folder, and another model may come to lie there."""
    named = {"align.start": settings.align.start, "survival.start": settings.survival.start}
    return {
        key: sha256((Path(folder) / SETTINGS).read_bytes()).hexdigest()  # which names the weights by theirs
        for key, folder in named.items()
        if folder and (Path(folder) / SETTINGS).is_file()
    }


def refuse_wrong_start(settings: StudySettings) -> None:
    """A model to begin with that is not there, or is of another network, signals or bank.

    Raises:
        ModelError: FECG-306..310.
    """
    if not start_of(settings):
        return
    bank = load_bank(settings.align.bank)
    network = build_network(
        settings.model,
        settings.signals.samples,
        bank.vectors.shape[1],
        settings.seed,
        settings.align.temperature,
        settings.survival.intercepts,
    )
    if settings.align.start:
        load_aligned(network, settings.align.start, settings.signals, bank.sha256)
    if settings.survival.start:
        load_finished(network, settings.survival.start, settings.signals, bank.sha256)
