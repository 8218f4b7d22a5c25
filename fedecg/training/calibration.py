"""Normalisation layers for a site that had no part in training: running statistics from its own ECGs, no outcome read.

In:  a network, ECGs of the site. Out: the network with statistics of these ECGs, changed in place.
Called by simulations for an unseen site of a federation with fedbn. Scales and shifts stay what the network brings: the
mean of the sites'. A network without running statistics (preset `fedecg`) is left as it is: its LayerNorms take theirs
from each ECG alone.

Source: Li et al. 2018, AdaBN, arXiv 1603.04779; FedBN: Li et al. 2021, arXiv 2102.07623.
"""

from __future__ import annotations

import torch
from torch import nn

from fedecg.model import Network
from fedecg.training.site_data import Rows, SiteData

__all__ = ["recalibrated"]

FEWEST_ECGS = 2  # of a batch: a variance needs two


def recalibrated(network: Network, site: SiteData, rows: Rows, batch_size: int = 64) -> int:
    """Re-estimate every running mean and variance as the plain mean over batches of the site's ECGs.

    Args:
        network: changed in place; comes back in evaluation mode.
        rows: (n,) of the site that may be looked at, as a rule its training part. Below two nothing changes.

    Returns:
        Number of layers that have running statistics.
    """
    layers = [part for part in network.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    batches = [batch for batch in batches if len(batch) >= FEWEST_ECGS]
    network.eval()
    if not layers or not batches:
        return len(layers)
    momenta = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.train()  # these layers alone: dropout stays off
        with torch.no_grad():
            for number, batch in enumerate(batches, start=1):
                for layer in layers:
                    layer.momentum = 1 / number  # a plain mean over the batches
                network.log_hazard(network.embed(site.signals(batch)))
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        network.eval()
    return len(layers)
