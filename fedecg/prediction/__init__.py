"""Step 11: a finished model on ECGs that nobody trained on.

In:  a model folder; recordings, record files, or an outside hospital's table of patients.
Out: log hazards with absolute risks; an evaluation with recalibration; a check of the folder; an exported program.
Called by the command `fedecg` and by anyone's Python: `fedecg.load(path).predict(recording)`.

    risk         log hazard -> risk by each horizon with its interval, percentile in the training study
    predictor    a model folder -> `Model`: recordings -> predictions
    readers      threads that read ahead, and that no hung file keeps a command from ending
    files        record files -> rows, read by threads while the network computes
    own_patients an outside hospital's table and ECGs -> its patients with their log hazards
    outside      those patients -> the whole evaluation, recalibration in the large
    folder       what a model folder holds, once its hashes are right
    export       the network as torch.export or ONNX
    commands     the command line of all that
    import_command published weights become a model folder

Names are loaded when they are first asked for, so that the command line says --help without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedecg.prediction.export import export_network
    from fedecg.prediction.files import FileRow, predict_files
    from fedecg.prediction.folder import verify
    from fedecg.prediction.outside import OutsideEvaluation, evaluate_outside, recalibrate
    from fedecg.prediction.predictor import Model, Prediction, load
    from fedecg.prediction.risk import HorizonRisk, RiskScale

__all__ = [
    "FileRow",
    "HorizonRisk",
    "Model",
    "OutsideEvaluation",
    "Prediction",
    "RiskScale",
    "evaluate_outside",
    "export_network",
    "load",
    "predict_files",
    "recalibrate",
    "verify",
]

_HOMES = {
    "FileRow": "files",
    "HorizonRisk": "risk",
    "Model": "predictor",
    "OutsideEvaluation": "outside",
    "Prediction": "predictor",
    "RiskScale": "risk",
    "evaluate_outside": "outside",
    "export_network": "export",
    "load": "predictor",
    "predict_files": "files",
    "recalibrate": "outside",
    "verify": "folder",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
