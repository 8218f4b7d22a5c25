"""ECGs as plain numbers: CSV, Parquet, .npy, .npz. Rate, unit and leads must be stated; none is assumed.

In:  the bytes of a file and of the JSON beside it. Out: `Rows`, one or many ECGs. Called by `reading`.

    CSV       a line "# rate-hz=500 unit=mV", a line with the leads' names, a line a sample
    Parquet   metadata rate-hz and unit; a column a lead: numbers (a row a sample) or lists (a row an ECG)
    .npz      signal (12, samples) or (N, 12, samples), rate_hz, unit, leads
    .npy      the array alone: FILE.npy.json states {"rate-hz": 500, "unit": "mV", "leads": ["I", ...]}

The JSON may stand beside any of them. Nothing is unpickled.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedecg.errors import SignalError
from fedecg.signals.faults import damaged, refuse_beyond
from fedecg.signals.recording import LEADS, Recording, recording_from_leads, standard_lead

__all__ = [
    "Rows",
    "is_csv",
    "is_npy",
    "is_parquet",
    "is_zip",
    "read_csv",
    "read_npy",
    "read_npz",
    "read_parquet",
]

_COMMENT = re.compile(r"([\w-]+)\s*[=:]\s*([^\s,;]+)")
_SEPARATORS = ",;\t"
_TIMES = {"time", "time_s", "time-s", "t", "sample", "index", ""}
_FEWEST_LEADS = 8
_HEADER_BYTES = 1 << 16


@dataclass(frozen=True)
class Rows:
    """The ECGs of a file: how many, and a function that reads one."""

    count: int
    read: Callable[[int], Recording]


@dataclass(frozen=True)
class _Stated:
    rate_hz: float
    unit: str
    leads: tuple[str, ...]


def is_csv(head: bytes) -> bool:
    """Whether a file begins as a table with a column a lead."""
    try:
        names, _ = _heading(_decoded(head.rpartition(b"\n")[0]))
    except ValueError:
        return False
    return sum(bool(standard_lead(name)) for name in names) >= _FEWEST_LEADS


def is_npy(head: bytes) -> bool:
    """Whether a file begins as a numpy array does."""
    return head.startswith(b"\x93NUMPY")


def is_zip(head: bytes) -> bool:
    """Whether a file begins as .npz (a zip file) does."""
    return head.startswith(b"PK\x03\x04")


def is_parquet(head: bytes) -> bool:
    """Whether a file begins as Parquet does."""
    return head.startswith(b"PAR1")


def read_csv(content: bytes, beside: bytes | None) -> Rows:
    """A table: a column a lead, a line a sample; a column of times is passed over.

    Raises:
        SignalError: FECG-277 not numbers, FECG-280 no rate or unit.
    """
    import pandas as pd

    try:
        text = _decoded(content)
        names, comments = _heading(text[:_HEADER_BYTES])
    except ValueError:
        raise damaged("CSV", "text without a line of names") from None
    line = next(x for x in text.splitlines() if x.strip() and not x.lstrip().startswith("#"))
    stated = _stated("CSV", comments, beside, leads=names)
    if any(not standard_lead(name) and name.casefold() not in _TIMES for name in names):
        raise SignalError(
            "FECG-208", "leads", found="columns with an unknown name", expected="columns named as leads"
        )
    try:
        # Python's own reading of numbers: that of pandas ends the process at exponents far out (fuzzing, pandas 2.3.3).
        table = pd.read_csv(
            io.StringIO(text),
            sep=_separator(line),
            comment="#",
            dtype=np.float32,
            index_col=False,
            float_precision="round_trip",
        )
    except (ValueError, MemoryError, OverflowError):  # pandas' parser errors are ValueErrors
        # 1,5 of a German spreadsheet is one and a half, 1,500 of an American one is not: neither is guessed.
        commas = " (decimal commas?)" if _separator(line) != "," and _has_commas(text) else ""
        raise damaged("CSV", f"cells that are no numbers{commas}, or lines of different lengths") from None
    if table.shape[1] != len(names):
        raise damaged("CSV", "lines of different lengths")
    kept = [index for index, name in enumerate(names) if standard_lead(name)]
    signal = table.to_numpy()[:, kept].T
    return _one(signal, _Stated(stated.rate_hz, stated.unit, tuple(names[index] for index in kept)))


def _decoded(content: bytes) -> str:
    """Text in UTF-8, or in Latin-1, in which Windows writes the µ of µV: names of leads and numbers are the same."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _has_commas(text: str) -> bool:
    return any("," in line for line in text.splitlines() if not line.lstrip().startswith("#"))


def read_parquet(content: bytes, beside: bytes | None) -> Rows:
    """A column a lead: numbers, a row a sample; or lists of numbers, a row an ECG.

    Raises:
        SignalError: FECG-277, FECG-278 more than the file can hold, FECG-280 no rate, unit or leads.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        schema = file.schema_arrow
        names = [name for name in schema.names if standard_lead(name)]
        unpacked = sum(
            file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups)
        )
        refuse_beyond("Parquet", max(file.metadata.num_rows * len(names), unpacked // 8), len(content))
        said = {
            key.decode(): value.decode() for key, value in (schema.metadata or {}).items() if len(key) < 64
        }
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        raise damaged("Parquet", "a footer that reads otherwise") from None
    stated = _stated("Parquet", said, beside, leads=names)
    kinds = {_column_kind(pa, schema.field(name).type) for name in names}
    if kinds not in ({"number"}, {"list"}):
        raise damaged("Parquet", "lead columns that hold neither numbers nor lists of numbers")

    def column(name: str) -> Any:
        try:
            return file.read(columns=[name]).column(0).combine_chunks()
        except (pa.ArrowException, OSError):
            raise damaged("Parquet", "columns that cannot be unpacked") from None

    if kinds == {"number"}:
        return _one(np.array([_numbers(column(name)) for name in names]), stated)
    columns = [column(name) for name in names]

    def read(row: int) -> Recording:
        leads = [column[row].values for column in columns]
        if any(lead is None for lead in leads) or len({len(lead) for lead in leads}) > 1:
            raise damaged("Parquet", "leads of different lengths")
        return _recording(np.array([_numbers(lead) for lead in leads]), stated)

    return Rows(len(columns[0]), read)


def read_npy(content: bytes, beside: bytes | None) -> Rows:
    """An array (leads, samples) or (N, leads, samples), described by the JSON beside it.

    Raises:
        SignalError: FECG-277 not such an array, FECG-280 no rate, unit or leads.
    """
    return _from_array(_array(content, "NumPy"), _stated("NumPy", {}, beside))


def read_npz(content: bytes, beside: bytes | None) -> Rows:
    """`signal` with `rate_hz`, `unit` and `leads`.

    Raises:
        SignalError: FECG-277, FECG-278 larger than its file, FECG-280 no rate, unit or leads.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            chosen = [entries[name] for name in ("signal", "rate_hz", "unit", "leads") if name in entries]
            refuse_beyond("NumPy", sum(entry.file_size for entry in chosen) // 8, len(content))
            held = {entry.filename.removesuffix(".npy"): archive.read(entry) for entry in chosen}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, OSError):
        raise damaged("NumPy", "a zip file that cannot be unpacked") from None
    if "signal" not in held:
        raise SignalError(
            "FECG-280",
            "NumPy file",
            found="no array named signal",
            expected="signal, rate_hz, unit and leads",
        )
    said: dict[str, Any] = {name: _array(held[name], "NumPy").tolist() for name in held if name != "signal"}
    return _from_array(_array(held["signal"], "NumPy"), _stated("NumPy", said, beside))


def _array(content: bytes, name: str) -> NDArray[Any]:
    """The array of .npy bytes; numbers or text only, and no larger than the bytes."""
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[
            version
        ]
        shape, fortran, dtype = read(file)
    except (ValueError, KeyError, EOFError, TypeError, SyntaxError, MemoryError):
        raise damaged(name, "an array whose header reads otherwise") from None
    count, offset = int(np.prod(shape, dtype=object)), file.tell()
    if dtype.kind not in "iufU" or count * dtype.itemsize != len(content) - offset:
        raise damaged(name, "an array of another kind or size than its header states")
    flat = np.frombuffer(content, dtype=dtype, offset=offset, count=count)
    return flat.reshape(shape, order="F" if fortran else "C")


def _from_array(signal: NDArray[Any], stated: _Stated) -> Rows:
    if signal.dtype.kind not in "iuf" or signal.ndim not in (2, 3) or signal.shape[-2] != len(stated.leads):
        raise damaged("NumPy", f"an array of shape {signal.shape} for {len(stated.leads)} leads")
    if signal.ndim == 2:
        return _one(signal, stated)
    return Rows(len(signal), lambda row: _recording(signal[row], stated))


def _one(signal: NDArray[Any], stated: _Stated) -> Rows:
    return Rows(1, lambda _: _recording(signal, stated))


def _recording(signal: NDArray[Any], stated: _Stated) -> Recording:
    return recording_from_leads(signal, stated.leads, [stated.unit] * len(stated.leads), stated.rate_hz)


def _heading(text: str) -> tuple[list[str], dict[str, str]]:
    """Names of the columns, and what the comments before them state."""
    comments: dict[str, str] = {}
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            comments |= dict(_COMMENT.findall(line))
        elif line.strip():
            return [cell.strip().strip('"').strip() for cell in line.split(_separator(line))], comments
    raise ValueError("no line of names")


def _separator(line: str) -> str:
    return max(_SEPARATORS, key=line.count)


def _stated(
    name: str, said: Mapping[str, Any], beside: bytes | None, leads: Sequence[str] | None = None
) -> _Stated:
    """Rate, unit and leads from the file itself, or from the JSON beside it."""
    facts: dict[str, Any] = {"leads": list(leads)} if leads else {}
    for source in (_json(beside), said):
        facts |= {str(key).strip().lower().replace("_", "-"): value for key, value in source.items()}
    try:
        rate_hz = float(facts.get("rate-hz", "nan"))
    except (TypeError, ValueError):
        rate_hz = np.nan
    unit, named = facts.get("unit"), facts.get("leads")
    absent = [] if rate_hz > 0 else ["rate-hz"]
    absent += [] if isinstance(unit, str) and unit else ["unit"]
    absent += (
        [] if isinstance(named, list) and named and all(isinstance(x, str) for x in named) else ["leads"]
    )
    if absent:
        raise SignalError(
            "FECG-280",
            f"{name} file",
            found=f"no {', no '.join(absent)}",
            expected=f"rate-hz, unit (mV or uV) and leads ({', '.join(LEADS[:3])} ...), in it or in FILE.json",
            fix="State them: see docs/formats.md.",
        )
    return _Stated(rate_hz, str(unit), tuple(named or ()))


def _json(beside: bytes | None) -> dict[str, Any]:
    try:
        facts = json.loads(beside or b"{}")
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise SignalError(
            "FECG-280",
            "FILE.json",
            found="text that is no JSON object",
            expected='{"rate-hz": 500, "unit": "mV", "leads": ["I", "II", ...]}',
        )
    return facts


def _column_kind(pa: Any, kind: Any) -> str:
    numbers = (pa.types.is_floating, pa.types.is_integer)
    if any(of(kind) for of in numbers):
        return "number"
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return "list" if lists and any(of(kind.value_type) for of in numbers) else ""


def _numbers(column: Any) -> NDArray[np.float32]:
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float32)
