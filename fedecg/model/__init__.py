"""Step 4: the dual attention network, its weights as a vector, its files.

In:  signals (N, 12, samples) in mV from `fedecg.signals`. Out: embeddings, log hazards, projections, attention maps.
Called by `fedecg.training`, `fedecg.evaluation`, the server and the simulations.
"""

from fedecg.model.baseline_encoders import BaselineEncoder
from fedecg.model.checkpoint import (
    BaselineFile,
    ImportedFile,
    PopulationFile,
    RecalibrationFile,
    SavedModel,
    load_aligned,
    load_finished,
    load_model,
    save_model,
    state_outcomes,
)
from fedecg.model.encoder import AttentionMaps, DualAttentionEncoder
from fedecg.model.imported import Import, import_checkpoint
from fedecg.model.layers import BatchwiseDropout
from fedecg.model.learned import Piece, learned_pieces, learning_rate, local_norms
from fedecg.model.network import Network, build_network, stage_tensors, tensors_of_stage
from fedecg.model.weights import Layout, layout, load_vector, to_vector

__all__ = [
    "AttentionMaps",
    "BaselineEncoder",
    "BaselineFile",
    "BatchwiseDropout",
    "DualAttentionEncoder",
    "Import",
    "ImportedFile",
    "Layout",
    "Network",
    "Piece",
    "PopulationFile",
    "RecalibrationFile",
    "SavedModel",
    "build_network",
    "import_checkpoint",
    "layout",
    "learned_pieces",
    "learning_rate",
    "load_aligned",
    "load_finished",
    "load_model",
    "load_vector",
    "local_norms",
    "save_model",
    "stage_tensors",
    "state_outcomes",
    "tensors_of_stage",
    "to_vector",
]
