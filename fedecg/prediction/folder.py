"""What a model folder holds, said only once its hashes and its parts have been checked.

In:  a model folder. Out: a dictionary of plain facts, as `fedecg verify` prints them. Called by `commands`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fedecg.errors import ModelError
from fedecg.evaluation import DAYS_A_YEAR
from fedecg.model import SavedModel
from fedecg.model.package import check_package
from fedecg.prediction.predictor import Model, load

__all__ = ["verify"]


def verify(folder: str | Path) -> dict[str, Any]:
    """Check a model folder; returns what it is.

    Returns:
        outcomes ("simulated", "observed" or "not stated"), intended-use, not-intended (sentences),
        preset, size, parameters, samples, rate-hz, band-hz, powerline, bank-sha256 ("" = not aligned),
        weights-sha256, baseline (None, or bins and follow-up-years), population (None, or patients), recalibration
        (None, or ratio, observed and expected events, original-sha256), imported (None, or layout, parts,
        source-sha256), files (name -> sha256; the one of SHA256SUMS
        stands for the whole folder).

    Raises:
        ModelError: FECG-306..309 files that are missing, changed or strange, format, shapes; FECG-304 weights that are
            not finite; FECG-321, FECG-345 a baseline or population that cannot be.
    """
    files = check_package(Path(folder))
    model = load(folder)
    saved = model.saved
    _check_finite(saved)
    settings, signals = saved.network.settings, saved.signals
    return {
        "preset": settings.preset,
        "size": settings.size,
        "parameters": sum(parameter.numel() for parameter in saved.network.parameters()),
        "samples": signals.samples,
        "rate-hz": signals.rate_hz,
        "band-hz": [signals.highpass_hz, signals.lowpass_hz],
        "powerline": signals.powerline,
        "outcomes": saved.outcomes,
        "intended-use": list(saved.intended_use),
        "not-intended": list(saved.not_intended),
        "bank-sha256": saved.bank_sha256,
        "weights-sha256": saved.weights_sha256,
        "baseline": _baseline(model),
        "population": saved.population and {"patients": sum(saved.population.patients)},
        "recalibration": saved.recalibration and saved.recalibration.model_dump(by_alias=True),
        "imported": saved.imported and saved.imported.model_dump(by_alias=True),
        "files": files,
    }


def _baseline(model: Model) -> dict[str, Any] | None:
    if model.scale is None:
        return None
    return {
        "bins": len(model.scale.baseline.edges_days),
        "follow-up-years": round(model.scale.follow_up_days / DAYS_A_YEAR, 2),
    }


def _check_finite(saved: SavedModel) -> None:
    tensors = saved.network.state_dict().values()
    wrong = sum(not bool(torch.isfinite(tensor).all()) for tensor in tensors)
    if wrong:
        raise ModelError(
            "FECG-304",
            "weights",
            found=f"{wrong} of {len(tensors)} tensors that are not finite",
            expected="finite numbers",
            fix="The training that wrote them diverged; take an earlier model.",
        )
