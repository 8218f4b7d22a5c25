"""ECGs to judge a representation by: of PTB-XL as published, of one site's folder, or of all sites of a simulation.

In:  a path and the signal settings of a model. Out: `ProbeSite`s, one a site, and their `SiteEmbeddings` by a network.
Called by `fedecg.representation.document`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fedecg.cohort import require_same_store
from fedecg.cohort.ptbxl import read_ptbxl
from fedecg.config import SignalSettings, load_site
from fedecg.errors import ModelError
from fedecg.model import Network
from fedecg.privacy.withdrawal import read_site_cohort
from fedecg.progress import Progress
from fedecg.signals import SignalStore, build_store, read_recording, store_key

__all__ = ["ProbeSite", "SiteEmbeddings", "embed_site", "merged", "read_sites"]

Float64 = NDArray[np.float64]
BATCH = 64


@dataclass(frozen=True, eq=False)
class ProbeSite:
    """One site's usable records.

    Attributes:
        name: of the site.
        store: their signals.
        record: (N,) int64, rows of the store.
        patient: (N,) int64.
        part: (N,) str.
        codes: N dictionaries, code -> likelihood in percent.
    """

    name: str
    store: SignalStore = field(repr=False)
    record: NDArray[np.int64] = field(repr=False)
    patient: NDArray[np.int64] = field(repr=False)
    part: NDArray[np.str_] = field(repr=False)
    codes: tuple[dict[str, float], ...] = field(repr=False)


@dataclass(frozen=True, eq=False)
class SiteEmbeddings:
    """One site's records as a network sees them; they stay at the site.

    Attributes:
        name, patient, part, codes: as in `ProbeSite`.
        embedding: (N, E) float64.
        projected: (N, D) float64, each of length 1: in the space of the code bank.
    """

    name: str
    patient: NDArray[np.int64] = field(repr=False)
    part: NDArray[np.str_] = field(repr=False)
    codes: tuple[dict[str, float], ...] = field(repr=False)
    embedding: Float64 = field(repr=False)
    projected: Float64 = field(repr=False)


def read_sites(
    path: str | Path,
    signals: SignalSettings,
    store_root: str | Path,
    records_hz: int = 100,
    progress: Progress | None = None,
) -> list[ProbeSite]:
    """The sites of a path, by name; records that quality rules refused are left out.

    Args:
        path: PTB-XL as published (its column `site` makes the sites), a folder with site.toml, or a folder of such.
        signals: of the model.
        store_root: where PTB-XL's signals are preprocessed; a store that is there is used again.
        records_hz: 100 or 500, which of PTB-XL's recordings to use.

    Raises:
        ModelError: FECG-370, none of the three; FECG-350, a store whose signals are not those of the model.
        SettingsError, SignalError, CohortError: what lies there cannot be used.
    """
    folder = Path(path)
    if (folder / "ptbxl_database.csv").exists():
        return _ptbxl(folder, signals, Path(store_root), records_hz, progress)
    folders = [folder] if (folder / "site.toml").exists() else sorted(folder.glob("*/site.toml"))
    if not folders:
        raise ModelError(
            "FECG-370",
            "--data",
            found="neither ptbxl_database.csv nor site.toml, there or in a folder below",
            expected="PTB-XL as published, a site's folder, or the sites of a simulation (RUN/sites)",
            fix="Give the folder that holds the table, or the site folders.",
        )
    return [_of_folder(one if one.is_dir() else one.parent, signals) for one in folders]


def embed_site(network: Network, site: ProbeSite) -> SiteEmbeddings:
    """Embed all records of a site, in batches; the network is in evaluation mode.

    Raises:
        ModelError: FECG-371, embeddings that are not finite.
    """
    embedded, projected = [], []
    with torch.inference_mode():
        for start in range(0, len(site.record), BATCH):
            signal_mv = torch.from_numpy(site.store.batch(site.record[start : start + BATCH]))
            found = network.embed(signal_mv)
            embedded.append(found.double().numpy())
            projected.append(network.project(found).double().numpy())
    embedding = _stacked(embedded, network.encoder.embedding_size)
    directions = _stacked(projected, network.bank_dim)
    finite = np.asarray(np.isfinite(np.hstack([embedding, directions])).all(axis=1))
    if not finite.all():
        raise ModelError(
            "FECG-371",
            "embeddings",
            found=f"{int((~finite).sum())} of {len(finite)} that are not finite",
            expected="finite numbers",
            fix="The training of these weights diverged; take an earlier model.",
        )
    length = np.linalg.norm(directions, axis=1, keepdims=True)
    directions = np.divide(directions, length, out=np.zeros_like(directions), where=length > 0)
    return SiteEmbeddings(site.name, site.patient, site.part, site.codes, embedding, directions)


def merged(sites: Sequence[SiteEmbeddings]) -> SiteEmbeddings:
    """All sites as one: what no real consortium has, and every federated figure is compared with."""
    numbered, start = [], 0
    for site in sites:
        _, patient = np.unique(site.patient, return_inverse=True)
        numbered.append(start + patient)
        start += int(patient.max(initial=-1)) + 1
    return SiteEmbeddings(
        "pooled",
        np.concatenate(numbered),
        np.concatenate([site.part for site in sites]),
        tuple(stated for site in sites for stated in site.codes),
        np.concatenate([site.embedding for site in sites]),
        np.concatenate([site.projected for site in sites]),
    )


def _stacked(batches: Sequence[Float64], width: int) -> Float64:
    return np.concatenate([np.zeros((0, width)), *batches])


def _ptbxl(
    folder: Path, signals: SignalSettings, store_root: Path, records_hz: int, progress: Progress | None
) -> list[ProbeSite]:
    index = read_ptbxl(folder, records_hz)
    source = f"ptbxl, {records_hz} Hz, {len(index.names)} records, sha256 {index.sha256}"
    key = store_key(signals, source, signals.powerline)
    recordings = [partial(read_recording, folder / name) for name in index.names]
    build = partial(build_store, store_root, key, signals, recordings, powerline=signals.powerline)
    if progress is None:
        store = build()
    else:
        with progress.task("preparing ECGs", len(recordings)) as advance:
            store = build(progress=lambda done, _: advance(done))
    usable = np.array(store.codes) == ""
    return [
        _chosen(
            name,
            store,
            np.flatnonzero(usable & (index.site == name)),
            (np.arange(len(index.names)), index.patient, index.part, index.codes),
        )
        for name in np.unique(index.site).tolist()
    ]


def _of_folder(folder: Path, signals: SignalSettings) -> ProbeSite:
    settings = load_site(folder / "site.toml")
    store, cohort = SignalStore.open(settings.store), read_site_cohort(folder, settings.cohort)
    require_same_store(settings.cohort, store.key)
    needed = signals.model_dump(by_alias=True)
    # A notch is the hospital's own choice; what an older store does not state is the default.
    held = SignalSettings().model_dump(by_alias=True) | store.settings
    other = [key for key in needed if key != "powerline" and held[key] != needed[key]]
    if other:
        raise ModelError(
            "FECG-350",
            "signal store",
            found=f"{len(other)} setting(s) other than the model's: {', '.join(other)}",
            expected=", ".join(f"{key} = {needed[key]}" for key in other),
            fix="Build the store with the [signals] settings in model.json.",
        )
    usable = np.flatnonzero(np.array(store.codes)[cohort.record] == "")
    return _chosen(settings.name, store, usable, (cohort.record, cohort.patient, cohort.part, cohort.codes))


def _chosen(
    name: str,
    store: SignalStore,
    rows: NDArray[np.intp],
    columns: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.str_], tuple[dict[str, float], ...]],
) -> ProbeSite:
    record, patient, part, codes = columns
    return ProbeSite(name, store, record[rows], patient[rows], part[rows], tuple(codes[row] for row in rows))
