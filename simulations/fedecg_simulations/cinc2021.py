"""PhysioNet/CinC Challenge 2021 as it is published, as a `Dataset`: eight sources, SNOMED CT codes, SIMULATED outcomes.

In:  a folder with training/SOURCE/gN/RECORD.hea and .mat (or training/ itself); sources that are absent are left out.
Out: one ECG a record, `site` = its source; statements by `snomed_codes`. Called by `sources` and by
     `published.layouts`. No message names a record.

The headers name no patients: every record counts as one. That is wrong for PTB-XL (21,837 ECGs of 18,885 patients),
PTB and INCART, where several ECGs of a patient can fall into different parts: `[data] sources` leaves a source out.

Source of the data set: Reyna et al. 2021, doi 10.22489/CinC.2021.198; PhysioNet challenge-2021 1.0.3; CC BY 4.0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

import numpy as np

from fedecg.errors import CohortError
from fedecg.signals import read_recording
from fedecg_simulations.dataset import Dataset
from fedecg_simulations.index_ecgs import IndexEcgs, drawn_patients
from fedecg_simulations.simulated_outcomes import with_simulated_outcomes
from fedecg_simulations.snomed_codes import scp_codes

__all__ = ["SOURCES", "Header", "load_cinc2021", "read_header", "record_headers", "source_folders"]

# Folder of a source -> records that the Challenge published of it.
SOURCES = MappingProxyType(
    {
        "chapman_shaoxing": 10_247,
        "cpsc_2018": 6_877,
        "cpsc_2018_extra": 3_453,
        "georgia": 10_344,
        "ningbo": 34_905,
        "ptb": 516,
        "ptb-xl": 21_837,
        "st_petersburg_incart": 74,
    }
)
OLDEST_YEARS = 120.0
SEXES = {"male": 0.0, "m": 0.0, "female": 1.0, "f": 1.0}
FETCH = "Fetch version 1.0.3 anew: fedecg-simulate data fetch cinc2021 PATH."


@dataclass(frozen=True)
class Header:
    """What a record's header says of its patient.

    Attributes:
        age_years, female: NaN = not stated, or not possible.
        snomed: codes, in their order.
        readable: it is the header of a record.
        other_release: written as in the Challenge's first releases (#Dx, not # Dx), whose gains are not all true.
    """

    age_years: float
    female: float
    snomed: tuple[str, ...]
    readable: bool
    other_release: bool


def load_cinc2021(
    path: str | Path, seed: int, event_fraction: float, sources: Sequence[str] = (), patients: int = 0
) -> Dataset:
    """Read the headers. Signals are read later, by `recordings`.

    Args:
        path: folder of the Challenge.
        seed: of the study; decides outcomes, parts and, with `patients`, who is taken.
        event_fraction: share of simulated events, in (0, 1).
        sources: which of `SOURCES`; none: all that are there.
        patients: so many records, drawn at random; 0 = all.

    Raises:
        CohortError: FECG-616 no source's folder, or one that is asked for is not there; FECG-617 headers of another
            release; FECG-622 headers that cannot be read; FECG-623 records without a header or a signal file.
    """
    folders = _chosen(source_folders(Path(path)), sources)
    named = {name: record_headers(folder) for name, folder in folders.items()}
    files = [file for of_source in named.values() for file in of_source]
    source = np.repeat(list(named), [len(of_source) for of_source in named.values()])
    rows = drawn_patients(len(files), patients, seed)
    files = [files[row] for row in rows]
    _require_signals(files, folders)
    headers = [read_header(file) for file in files]
    _require_release(headers)
    stated = [scp_codes(header.snomed) for header in headers]
    site = source[rows]
    age = np.array([header.age_years for header in headers])
    female = np.array([header.female for header in headers])
    ecgs = IndexEcgs(
        age_years=age,
        female=female,
        codes=tuple(codes for codes, _ in stated),
        columns={"site": site, "device": np.full(len(site), "unknown"), "source": site},
        recordings=[partial(read_recording, file) for file in files],
        source=f"cinc2021, {len(files)} records, sha256 {_state_sha256(files)}",
        notes={
            "records-counted-as-patients": len(files),
            "sources": len(set(site.tolist())),
            "records-without-a-statement": sum(not codes for codes, _ in stated),
            "snomed-codes-without-a-statement": sum(left for _, left in stated),
            "ages-missing": int(np.isnan(age).sum()),
            "sexes-missing": int(np.isnan(female).sum()),
        },
    )
    return with_simulated_outcomes(ecgs, seed, event_fraction)


def source_folders(path: Path) -> dict[str, Path]:
    """Source -> its folder, in the order of `SOURCES`; empty where `path` is no folder of the Challenge."""
    for base in (path / "training", path):
        found = {name: base / name for name in SOURCES if (base / name).is_dir()}
        if found:
            return found
    return {}


def record_headers(folder: Path) -> list[Path]:
    """Headers of a source, sorted: those in its folder, in gN below it, and those that a RECORDS there names."""
    groups = [folder, *(group for group in sorted(folder.glob("g*")) if group.is_dir())]
    return [group / name for group in groups for name in sorted(_in_group(group))]


def read_header(file: Path) -> Header:
    """Age, sex and codes from the comments of a header."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    said: dict[str, str] = {}
    spaced = True
    for line in lines:
        if line.startswith("#"):
            key, _, value = line[1:].partition(":")
            spaced = spaced and line.startswith("# ")
            said.setdefault(key.strip().lower(), value.strip())
    readable = len(lines) > 1 and len(lines[0].split()) >= 3 and "dx" in said
    codes = tuple(code for code in (one.strip() for one in said.get("dx", "").split(",")) if code.isdigit())
    return Header(
        _age(said.get("age", "")),
        SEXES.get(said.get("sex", "").lower(), float("nan")),
        codes,
        readable,
        not spaced,
    )


def _in_group(group: Path) -> set[str]:
    """Names of headers that are there, or that the group's RECORDS names."""
    there = {file.name for file in group.glob("*.hea")}
    try:
        lines = (group / "RECORDS").read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return there
    return there | {f"{Path(line).name}.hea" for line in lines if Path(line).name == line}


def _age(text: str) -> float:
    try:
        age = float(text)
    except ValueError:
        return float("nan")
    return age if 0 <= age <= OLDEST_YEARS else float("nan")


def _chosen(folders: dict[str, Path], sources: Sequence[str]) -> dict[str, Path]:
    absent = [name for name in sources if name not in folders]
    if not folders or absent:
        raise CohortError(
            "FECG-616",
            "folder of cinc2021",
            found=f"no folder {', '.join(absent)}" if folders else "no folder of a source",
            expected=f"training/ with one or more of {', '.join(SOURCES)}",
            fix="Give the folder that holds training/: --data PATH.",
        )
    return {name: folder for name, folder in folders.items() if not sources or name in sources}


def _require_signals(files: list[Path], folders: dict[str, Path]) -> None:
    bad = sum(not (file.is_file() and file.with_suffix(".mat").is_file()) for file in files)
    if bad or not files:
        raise CohortError(
            "FECG-623",
            "signal files",
            found=f"{bad} of {len(files)} records without a .hea or .mat file, in {len(folders)} source(s)",
            expected="training/SOURCE/gN/ as published, one record or more",
            fix="Complete the download: fedecg-simulate data fetch cinc2021 PATH; or leave that source's folder out.",
        )


def _require_release(headers: list[Header]) -> None:
    unreadable = sum(not header.readable for header in headers)
    if unreadable:
        _refuse(
            "FECG-622",
            f"{unreadable} of {len(headers)} that are no header of a record with # Dx",
            "headers as published",
        )
    other = sum(header.other_release for header in headers)
    if other:
        _refuse(
            "FECG-617",
            f"{other} of {len(headers)} as the Challenge's first releases wrote them (#Dx), some with wrong gains",
            "headers of PhysioNet's version 1.0.3 (# Dx)",
        )


def _refuse(code: str, found: str, expected: str) -> NoReturn:
    raise CohortError(code, "headers of cinc2021", found=found, expected=expected, fix=FETCH)


def _state_sha256(files: list[Path]) -> str:
    """Hash of names, sizes and times of change: 13 GB are not read to know that they are the same."""
    digest = hashlib.sha256()
    for file in files:
        for one in (file, file.with_suffix(".mat")):
            state = one.stat()
            digest.update(f"{one.parent.name}/{one.name} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()
