"""A model as a folder: `weights.safetensors`, `model.json`, their sums. Nothing in it is executed when it is read.

In:  a network, the signal settings it was trained with, the hash of its code bank. Out: a folder, and back.
Called by the server, the simulations and whoever uses a finished model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save

from fedecg.config import ModelSettings, Section, SignalSettings
from fedecg.errors import ModelError
from fedecg.files import write_whole
from fedecg.intended_use import INTENDED_USE, NOT_INTENDED
from fedecg.model.network import Network, build_network, stage_tensors
from fedecg.model.package import (
    CARD,
    CHECKLISTS,
    EXPLANATION,
    SETTINGS,
    WEIGHTS,
    check_file,
    listed_sums,
    read_file,
    write_sums,
)

__all__ = [
    "BaselineFile",
    "ImportedFile",
    "PopulationFile",
    "RecalibrationFile",
    "SavedModel",
    "load_aligned",
    "load_model",
    "save_model",
    "state_outcomes",
]

TRAINING_ONLY = {"intercepts"}  # of the network's tensors


Outcomes = Literal["simulated", "observed", "not stated"]


class BaselineFile(Section):
    """Baseline cumulative hazard that turns a log hazard into an absolute risk.

    Attributes:
        edges_days: (bins,) left edges of the time bins, days, ascending from 0; the last is open.
        cumulative_hazard: (bins,) H0, not decreasing.
        variance: (bins,) sum over event times of d / W^2, the variance of H0 with the log hazards taken as known.
    """

    edges_days: list[float]
    cumulative_hazard: list[float]
    variance: list[float]


class PopulationFile(Section):
    """Log hazards of the patients that validated the model, in bins: what a percentile refers to.

    Attributes:
        risk_cuts: (bins - 1,) rising cuts of the log hazard; both ends are open.
        patients: (bins,) counts of patients.
    """

    risk_cuts: list[float]
    patients: list[Annotated[int, Field(ge=0)]]


class RecalibrationFile(Section):
    """That, and how, the baseline was scaled to one hospital's patients; such a model is that hospital's own.

    Attributes:
        ratio: observed over expected events, by which the cumulative hazard was multiplied.
        observed, expected: events there.
        original_sha256: of the `model.json` that it was made from.
    """

    ratio: Annotated[float, Field(gt=0)]
    observed: Annotated[int, Field(ge=1)]
    expected: Annotated[float, Field(gt=0)]
    original_sha256: str


class ImportedFile(Section):
    """Published weights that a folder was made from; what they do not have is as untrained as a new network's.

    Attributes:
        layout: whose names and shapes the source had.
        parts: of the network that have its weights; the risk head is never among them.
        source_sha256: of the source.
    """

    layout: Literal["chen-2025"] = "chen-2025"
    parts: list[Literal["encoder", "decoder"]]
    source_sha256: str


class ModelFile(Section):
    """Contents of `model.json`."""

    format: Literal[1] = 1
    model: ModelSettings
    signals: SignalSettings
    bank_dim: Annotated[int, Field(ge=1)]
    bank_sha256: str
    weights_sha256: str
    outcomes: Outcomes = "not stated"
    baseline: BaselineFile | None = None
    population: PopulationFile | None = None
    recalibration: RecalibrationFile | None = None
    imported: ImportedFile | None = None
    intended_use: list[str] = []
    not_intended: list[str] = []


@dataclass(frozen=True)
class SavedModel:
    """A model read from its folder.

    Attributes:
        network: in evaluation mode.
        signals: how a recording becomes this network's input.
        bank_sha256: hash of the code bank it was aligned to, "" if it was not.
        baseline: of the patients that validated it; None before a survival stage.
        population: their log hazards; None before a survival stage.
        weights_sha256: of the weights file, which has it.
        settings_sha256: of `model.json`, which names the weights: it stands for the whole model.
        recalibration: None where the baseline is the study's.
        imported: where the weights are those of a publication; None for a model of a study.
        outcomes: what it was trained on; risks of simulated outcomes are not those of patients.
        intended_use, not_intended: sentences of model.json; empty in a model of before they stood there.
    """

    network: Network
    signals: SignalSettings
    bank_sha256: str
    baseline: BaselineFile | None
    population: PopulationFile | None
    weights_sha256: str
    settings_sha256: str
    recalibration: RecalibrationFile | None = None
    imported: ImportedFile | None = None
    outcomes: Outcomes = "not stated"
    intended_use: tuple[str, ...] = ()
    not_intended: tuple[str, ...] = ()


def save_model(
    folder: str | Path,
    network: Network,
    signals: SignalSettings,
    bank_sha256: str,
    baseline: BaselineFile | None = None,
    population: PopulationFile | None = None,
    recalibration: RecalibrationFile | None = None,
    outcomes: Outcomes = "not stated",
    imported: ImportedFile | None = None,
) -> None:
    """Write a model folder; each file appears whole or not at all, SHA256SUMS last.

    Args:
        folder: made if it is not there; a model that lies there is replaced, its card and checklists go.
        bank_sha256: hash of the code bank, "" if the network was not aligned.
        baseline: cumulative hazard that the log hazards refer to.
        population: log hazards that a percentile refers to.
        recalibration: where the baseline is not the study's.
        outcomes: what the network was trained on.
        imported: where the weights are those of a publication.

    Raises:
        RunError: FECG-601, the folder cannot be written.
    """
    state = {
        name: tensor.detach().contiguous()
        for name, tensor in network.state_dict().items()
        if name not in TRAINING_ONLY
    }
    weights = save(state)
    described = ModelFile(
        model=network.settings,
        signals=signals,
        bank_dim=network.bank_dim,
        bank_sha256=bank_sha256,
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        baseline=baseline,
        population=population,
        recalibration=recalibration,
        imported=imported,
        outcomes=outcomes,
        intended_use=list(INTENDED_USE),
        not_intended=list(NOT_INTENDED),
    )
    folder = Path(folder)
    write_whole(folder / WEIGHTS, weights)
    for told_of_another in (CARD, CHECKLISTS, EXPLANATION):
        (folder / told_of_another).unlink(missing_ok=True)
    _write_settings(folder, described)
    write_sums(folder, (WEIGHTS, SETTINGS), forget=True)


def _write_settings(folder: Path, described: ModelFile) -> None:
    text = json.dumps(described.model_dump(by_alias=True), indent=2, sort_keys=True) + "\n"
    write_whole(folder / SETTINGS, text)


def load_model(folder: str | Path) -> SavedModel:
    """Read a model folder and check it against its own hashes; `package.check_package` checks its other files, too.

    Raises:
        ModelError: FECG-306, a file is missing or not readable; FECG-307, `model.json` is not one of ours;
            FECG-308, a file is not the one that SHA256SUMS (where there is one) or `model.json` names; FECG-309, the
            weights do not fit the network.
    """
    text, weights = read_file(Path(folder) / SETTINGS), read_file(Path(folder) / WEIGHTS)
    sums = listed_sums(Path(folder))
    if sums is not None:  # a wrong digit of the baseline hazard is a wrong risk
        check_file(SETTINGS, text, sums)
        check_file(WEIGHTS, weights, sums)
    described = _parse(text)
    found = hashlib.sha256(weights).hexdigest()
    if found != described.weights_sha256:
        raise ModelError(
            "FECG-308",
            WEIGHTS,
            found=f"sha256 {found[:12]}...",
            expected=f"{described.weights_sha256[:12]}... (model.json)",
            fix="Copy the whole model folder again.",
        )
    network = build_network(described.model, described.signals.samples, described.bank_dim, seed=0)
    _load_state(network, weights)
    return SavedModel(
        network=network.eval(),
        signals=described.signals,
        bank_sha256=described.bank_sha256,
        baseline=described.baseline,
        population=described.population,
        weights_sha256=found,
        settings_sha256=hashlib.sha256(text).hexdigest(),
        recalibration=described.recalibration,
        imported=described.imported,
        outcomes=described.outcomes,
        intended_use=tuple(described.intended_use),
        not_intended=tuple(described.not_intended),
    )


def state_outcomes(folder: str | Path, outcomes: Outcomes) -> None:
    """Write into a model folder what the model was trained on: a simulation knows it, a coordinator may not.

    Raises:
        ModelError: FECG-306..308 as `load_model`. RunError: FECG-601.
    """
    folder = Path(folder)
    text, sums = read_file(folder / SETTINGS), listed_sums(folder)
    if sums is not None:  # new sums must not make a damaged file sound
        check_file(SETTINGS, text, sums)
    _write_settings(folder, _parse(text).model_copy(update={"outcomes": outcomes}))
    write_sums(folder, [SETTINGS])


def load_aligned(network: Network, folder: str | Path, signals: SignalSettings, bank_sha256: str) -> None:
    """Give a network what alignment has taught an earlier model: all but the risk head, in place.

    A model of imported weights gives the parts that it has them in, and was aligned with no bank: the study's own
    projection begins untrained, so any bank will do.

    Args:
        network: of the study that begins.
        folder: of the earlier model.
        signals, bank_sha256: of the study; the earlier model must have been aligned with the same (bank: if at all).

    Raises:
        ModelError: FECG-306..309 as `load_model`; FECG-310, a model of another kind of network, signals or bank.
    """
    earlier = _same_kind(network, folder, signals, bank_sha256)
    taught = stage_tensors(network, "align", reconstruction=True)
    if earlier.imported is not None:
        taught = tuple(name for name in taught if name.split(".")[0] in earlier.imported.parts)
    state = earlier.network.state_dict()
    network.load_state_dict({name: state[name] for name in taught}, strict=False)


def load_finished(network: Network, folder: str | Path, signals: SignalSettings, bank_sha256: str) -> None:
    """Give a network all that an earlier model has, its risk head too, in place.

    Args, Raises: as `load_aligned`; FECG-310 also where the earlier model's risk head was never trained.
    """
    earlier = _same_kind(network, folder, signals, bank_sha256)
    if earlier.imported is not None:
        raise ModelError(
            "FECG-310",
            "model to start from",
            found="imported weights without a trained risk head",
            expected="a finished model of a study",
            fix="Begin with it in [align]: align.start.",
        )
    network.load_state_dict(earlier.network.state_dict(), strict=False)


def _same_kind(network: Network, folder: str | Path, signals: SignalSettings, bank_sha256: str) -> SavedModel:
    earlier = load_model(folder)
    same = {
        "[model]": earlier.network.settings == network.settings,
        "[signals]": earlier.signals == signals,
        "code bank": earlier.imported is not None or earlier.bank_sha256 == bank_sha256,
    }
    different = [name for name, equal in same.items() if not equal]
    if different:
        raise ModelError(
            "FECG-310",
            "model to start from",
            found=f"another {', another '.join(different)} than the study's",
            expected="the same network, signals and code bank",
            fix="Take [model], [signals] and align.bank from that model's study.toml (imported: its model.json).",
        )
    return earlier


def _load_state(network: Network, weights: bytes) -> None:
    try:
        state: Mapping[str, object] = load(weights)
        network.load_state_dict(state)
    except (SafetensorError, RuntimeError) as error:
        raise ModelError(
            "FECG-309",
            WEIGHTS,
            found=type(error).__name__,
            expected="the tensors that model.json describes",
            fix="The file was written by another version of fedecg, or is not a model of ours.",
        ) from None


def _parse(text: bytes) -> ModelFile:
    try:
        return ModelFile.model_validate(json.loads(text))
    except (ValidationError, ValueError) as error:
        raise ModelError(
            "FECG-307",
            SETTINGS,
            found=type(error).__name__,
            expected="JSON of format 1",
            fix="The file was edited, or written by a newer fedecg.",
        ) from None
