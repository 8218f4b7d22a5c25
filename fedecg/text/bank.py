"""The code bank: one embedded statement a code, the same at every site; and what a record's codes point at in it.

In:  a `.safetensors` bank with its `.json` provenance (from the package, a path, or a message's arrays), and the
     codes of a cohort.
Out: a checked `Bank`, and targets (N, K) for the alignment loss. Called by `fedecg.training`, server and client.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedecg.errors import TextError
from fedecg.files import in_words, write_whole
from fedecg.text.space import TENSORS, TextSpace

__all__ = ["Bank", "load_bank", "make_bank", "refuse_other_names", "targets", "write_bank"]

UNIT_TOLERANCE = 1e-4
SHOWABLE_CODE = re.compile(r"(?=.*[A-Z])[A-Z0-9_()/+-]{1,12}")


@dataclass(frozen=True, eq=False)
class Bank:
    """One matrix of embedded statements; build it with `make_bank`, which checks it.

    Attributes:
        name: what a study calls it.
        codes: K codes, each once, in the order of the rows.
        vectors: (K, D) float32, each of length 1; centred, and whitened as the provenance says (`whiten`).
        sha256: of codes and vectors; the study lock and the sites compare it.
        provenance: where it came from (model, hash of its weights, pooling, hash of the prompts).
        space: puts reports beside the statements; None in a bank of before there was one.
        space_sha256: of the space and of the language model that it belongs to; "" without one. The lock has it, too.
    """

    name: str
    codes: tuple[str, ...]
    vectors: NDArray[np.float32]
    sha256: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    space: TextSpace | None = None
    space_sha256: str = ""


def make_bank(
    name: str,
    codes: Sequence[str],
    vectors: NDArray[np.float32],
    provenance: Mapping[str, Any],
    space: TextSpace | None = None,
) -> Bank:
    """Check codes and vectors and put the sha256 on them.

    Raises:
        TextError: FECG-242 shapes, kinds or codes; FECG-243 vectors that are not finite or not of length 1.
    """
    wellformed = vectors.ndim == 2 and vectors.dtype == np.float32 and vectors.shape[0] == len(codes) >= 2
    if not wellformed or vectors.shape[1] == 0 or len(set(codes)) != len(codes) or not all(codes):
        raise TextError(
            "FECG-242",
            f"bank {name}",
            found=f"{len(codes)} codes ({len(set(codes))} different), {vectors.dtype} vectors of shape "
            f"{vectors.shape}",
            expected="at least 2 different codes and one float32 vector a code",
        )
    if space is not None and not space.fits(vectors.shape[1]):
        raise TextError(
            "FECG-242",
            f"bank {name}",
            found="a centre and a whitening of another length or kind than its vectors",
            expected=f"finite float32 numbers for vectors of {vectors.shape[1]}",
        )
    length = np.linalg.norm(vectors.astype(np.float64), axis=1)
    bad = int(np.sum(~(np.abs(length - 1) <= UNIT_TOLERANCE)))  # a NaN compares as not close
    if bad:
        raise TextError(
            "FECG-243",
            f"bank {name}",
            found=f"{bad} of {len(codes)} vectors that are not finite or not of length 1",
            expected="finite vectors of length 1",
            fix="Build it with fedecg bank build.",
        )
    of_space = space.sha256(provenance) if space is not None else ""
    return Bank(name, tuple(codes), vectors, _bank_sha256(codes, vectors), dict(provenance), space, of_space)


def load_bank(name_or_path: str | Path) -> Bank:
    """Load a bank of the package by name ("minilm-demo"), or any bank by the path of its `.safetensors` file.

    Raises:
        TextError: FECG-241 no such bank, or a file that cannot be read; FECG-242, FECG-243 as `make_bank`;
            FECG-244 the contents are not those that were written, or the provenance is of another bank.
    """
    given = str(name_or_path)
    path = Path(given if given.endswith(".safetensors") else str(_shipped(f"{given}.safetensors")))
    try:
        with safe_open(path, framework="numpy") as file:
            head = json.loads(file.metadata()["fedecg"])
            vectors = file.get_tensor("vectors")
            parts = [file.get_tensor(part) for part in TENSORS] if "centre" in file.keys() else []  # noqa: SIM118
        provenance = dict(json.loads(path.with_suffix(".json").read_text(encoding="utf-8")))
        name, codes, sha256 = str(head["name"]), [str(code) for code in head["codes"]], head["sha256"]
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        alone = path.is_file() and not path.with_suffix(".json").exists()
        _refuse_file(path.stem, "no .json beside it" if alone else in_words(error))
    bank = make_bank(name, codes, vectors, provenance, TextSpace(*parts) if parts else None)
    of_space = (head.get("space-sha256", ""), provenance.get("space-sha256", ""))
    if not bank.sha256 == sha256 == provenance.get("sha256") or of_space != (bank.space_sha256,) * 2:
        raise TextError(
            "FECG-244",
            f"bank {name}",
            found="contents, or a provenance file, with another sha256 than recorded",
            expected="the bank as it was written, with its own provenance",
            fix="Copy both files again, or build it again.",
        )
    return bank


def write_bank(bank: Bank, path: str | Path) -> None:
    """Write `path` (.safetensors: vectors, codes, name, hashes, space) and its `.json` (provenance), each whole.

    The same bank gives the same bytes.

    Raises:
        TextError: FECG-241 as `refuse_other_names`.
        RunError: FECG-601 as `write_whole`.
    """
    refuse_other_names(path)
    path = Path(path)
    head = {"name": bank.name, "codes": bank.codes, "sha256": bank.sha256}
    hashes, tensors = {"sha256": bank.sha256}, {"vectors": bank.vectors}
    if bank.space is not None:
        head["space-sha256"] = hashes["space-sha256"] = bank.space_sha256
        tensors |= {part: np.ascontiguousarray(getattr(bank.space, part)) for part in TENSORS}
    provenance = {**bank.provenance, **hashes}
    # One metadata key: safetensors writes several in no fixed order.
    write_whole(path, save(tensors, metadata={"fedecg": json.dumps(head)}))
    write_whole(path.with_suffix(".json"), json.dumps(provenance, indent=2) + "\n")


def refuse_other_names(path: str | Path) -> None:
    """Refuse a name that `write_bank` would refuse.

    Raises:
        TextError: FECG-241 the name does not end in .safetensors, or is that of a folder.
    """
    if Path(path).suffix != ".safetensors":
        _refuse_file(Path(path).stem, "a file name that does not end in .safetensors")
    if Path(path).is_dir():
        _refuse_file(Path(path).stem, "a folder of that name")


def targets(
    codes: Sequence[Mapping[str, float]], bank: Bank, likelihood_zero: Literal["stated", "paper"] = "stated"
) -> NDArray[np.float32]:
    """What each record's codes point at: likelihoods as shares of the record's sum.

    PTB-XL writes likelihood 0 where none was given, for every rhythm code among others.

    Args:
        codes: N dictionaries, code -> likelihood in percent, 0..100.
        bank: K statements.
        likelihood_zero: "stated": 0 counts as 100; "paper": a code with 0 is dropped, as Chen et al. do.

    Returns:
        (N, K) float32; a row sums to 1, or is all zero where nothing is stated.

    Raises:
        TextError: FECG-245 codes that the bank has no statement for; FECG-246 likelihoods outside 0..100.
    """
    column = {code: index for index, code in enumerate(bank.codes)}
    _refuse_unknown(codes, column)
    _refuse_likelihoods(codes)
    weights = np.zeros((len(codes), len(column)))
    for row, stated in enumerate(codes):
        for code, likelihood in stated.items():
            weights[row, column[code]] = likelihood
            if likelihood == 0 and likelihood_zero == "stated":
                weights[row, column[code]] = 100.0
    total = weights.sum(axis=1, keepdims=True)
    shares: NDArray[np.float32] = np.divide(weights, total, out=weights, where=total > 0).astype(np.float32)
    return shares


def _bank_sha256(codes: Sequence[str], vectors: NDArray[np.float32]) -> str:
    """Of the JSON list [codes, shape], a zero byte, and the vectors as little-endian float32, row by row."""
    head = json.dumps([list(codes), list(vectors.shape)], separators=(",", ":"))
    return hashlib.sha256(head.encode() + b"\0" + vectors.astype("<f4").tobytes()).hexdigest()


def _shipped(file_name: str) -> Path:
    return Path(str(files("fedecg.text"))) / "banks" / file_name


def _refuse_file(name: str, found: str) -> NoReturn:
    shipped = ", ".join(sorted(path.stem for path in _shipped("").glob("*.safetensors")))
    raise TextError(
        "FECG-241",
        f"bank {name}",
        found=found,
        expected=f"a bank of the package ({shipped}), or a .safetensors bank with its .json beside it",
        fix="Check [align] bank, or build one: fedecg bank build --help.",
    )


def _refuse_unknown(codes: Sequence[Mapping[str, float]], column: Mapping[str, int]) -> None:
    unknown = [code for stated in codes for code in stated if code not in column]
    if unknown:
        names = sorted(set(unknown))
        # A site's own table may hold anything: only what looks like an SCP code is shown.
        shown = [code for code in names if SHOWABLE_CODE.fullmatch(code)][:10]
        raise TextError(
            "FECG-245",
            "codes",
            found=f"{len(unknown)} use(s) of {len(names)} unknown code(s): {', '.join(shown) or 'not shown'}",
            expected=f"codes of the bank, which has {len(column)}",
            fix="Map them to codes of the bank, or choose a bank that has statements for them.",
        )


def _refuse_likelihoods(codes: Sequence[Mapping[str, float]]) -> None:
    bad = sum(not 0 <= likelihood <= 100 for stated in codes for likelihood in stated.values())
    if bad:
        raise TextError(
            "FECG-246",
            "likelihood",
            found=f"{bad} value(s) outside the range",
            expected="percent, 0..100",
            fix="Shares of 1 must be multiplied by 100.",
        )
