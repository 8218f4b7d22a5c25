"""Tiny studies with differential privacy in this process, with everything that leaves a site kept; plain functions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Message

from fedecg.config import SiteDefaults, StudySettings, load_site, parse_settings
from fedecg.federation.messages import document_of, from_record
from fedecg.privacy.ledger import Entry, open_ledger
from fedecg.progress import Progress
from fedecg_client.app import app as client_app
from fedecg_server.run_folder import RunFolder, read_json
from fedecg_server.study import run_study
from fedecg_simulations.grid import FIRST_NODE, InProcessGrid
from fedecg_simulations.partitions import virtual_sites
from fedecg_simulations.runner import ingest
from fedecg_simulations.sites import write_sites
from fedecg_simulations.sources import load_dataset

EPSILON = 200.0  # a patient; with less, noise leaves no event of so few
Left = tuple[str, str, dict[str, Any], np.ndarray | None]  # site, kind of task, document, vector


def settings_of(store: Path, **sections: dict[str, Any]) -> StudySettings:
    """Two hospitals, one alignment and three survival rounds of two steps; a budget for so few."""
    tree: dict[str, dict[str, Any]] = {
        "data": {"store": str(store), "test-patients": 40, "sites": {"city": 60, "coast": 50}},
        "signals": {"samples": 128},
        "model": {"size": "small"},
        "align": {"rounds": 1, "local-steps": 2},
        "survival": {"rounds": 3, "local-steps": 2, "horizon-days": 3653.0},
        "privacy": {
            "mode": "sample",
            "sums": "noised",
            "sampling-rate": 0.2,
            "hazard-every": 2,
            "sums-share": 0.5,
            "reserve": 0,
        },
        "site-defaults": {"epsilon": EPSILON, "delta": 1e-5},
        "evaluation": {"explain": False, "comparison": False},
    }
    for name, keys in sections.items():
        tree[name] = {**tree.get(name, {}), **keys}
    return parse_settings(StudySettings, {"name": "private", "seed": 100, **tree})


def sites_of(settings: StudySettings, folder: Path) -> Path:
    """Site folders with data; their ledgers are new."""
    dataset, parts = virtual_sites(load_dataset(settings), settings.partition, settings.seed)
    store = ingest(dataset, settings, Progress())
    write_sites(dataset.cohort, store.folder, parts, folder, settings.site_defaults)
    return folder


def run(
    settings: StudySettings,
    sites: Path,
    out: Path,
    meddle: Callable[[str, str], None] | None = None,
    resumable: bool = False,
) -> list[Left]:
    """A whole study; returns what left the sites, message by message.

    Args:
        meddle: called with site and kind of task before each task is done.
        resumable: as a coordinator runs it.
    """
    left: list[Left] = []
    names = {
        number: load_site(file).name
        for number, file in enumerate(sorted(sites.glob("*/site.toml")), start=FIRST_NODE)
    }

    def app(message: Message, context: Context) -> Message:
        name, kind = names[message.metadata.dst_node_id], message.metadata.message_type
        if meddle is not None:
            meddle(name, kind)
        reply = client_app(message, context)
        vectors = [from_record(record) for record in reply.content.array_records.values()]
        left.append((name, kind, document_of(reply.content), vectors[0] if vectors else None))
        return reply

    nodes = {
        number: {"site-folder": str(file.parent)}
        for number, file in enumerate(sorted(sites.glob("*/site.toml")), start=FIRST_NODE)
    }
    run_study(InProcessGrid(app, nodes), settings, RunFolder(out, resumable), Progress())  # type: ignore[arg-type]
    return left


def result_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(out / "result.json")
    return found


def entries_of(folder: Path) -> tuple[Entry, ...]:
    """What a site's ledger holds."""
    with open_ledger(folder) as ledger:
        return ledger.entries


def set_budget(folder: Path, defaults: SiteDefaults | None) -> None:
    """Change what a site's site.toml says of its budget."""
    file = folder / "site.toml"
    kept = [line for line in file.read_text().splitlines() if not line.startswith(("epsilon", "delta"))]
    if defaults is not None:
        at = kept.index("[privacy]") + 1
        kept[at:at] = [f"epsilon = {defaults.epsilon}", f"delta = {defaults.delta}"]
    file.write_text("\n".join(kept) + "\n")
