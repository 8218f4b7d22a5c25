"""Training at a site: (weights, data, settings) -> (new weights, sums). See `local.py` first.

In:  a network with a round's weights and a site's data. Out: new weights in place, counts, sums by exit bin.
Called by the client and by simulations. Nothing here knows of Flower.
"""

from fedecg.training.calibration import recalibrated
from fedecg.training.checkpoint import UNWATCHED, Checkpoint, Watch
from fedecg.training.collapse import Ranks, ranks
from fedecg.training.local import Trained, train_align, train_survival
from fedecg.training.randomness import seeded_torch, site_generator
from fedecg.training.sampling import event_stratified_batches, shuffled_batches
from fedecg.training.scoring import SurvivalSums, log_hazards, site_baseline, survival_sums
from fedecg.training.sealed import read_sealed, write_sealed
from fedecg.training.site_data import SiteData, load_site_data

__all__ = [
    "UNWATCHED",
    "Checkpoint",
    "Ranks",
    "SiteData",
    "SurvivalSums",
    "Trained",
    "Watch",
    "event_stratified_batches",
    "load_site_data",
    "log_hazards",
    "ranks",
    "read_sealed",
    "recalibrated",
    "seeded_torch",
    "shuffled_batches",
    "site_baseline",
    "site_generator",
    "survival_sums",
    "train_align",
    "train_survival",
    "write_sealed",
]
