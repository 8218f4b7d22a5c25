"""Sums as flat lists of numbers: how records of arrays travel, and how they are read into shapes that are known.

In:  dataclasses of arrays and numbers by name; a document's lists under `part.field`.
Out: the lists, and back. Called by `sums`, and by `fedecg.explanation.documents`.

No shape is sent. The reader has the same record made from nobody's data, and takes shapes and kinds from that, so
that a site cannot choose them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedecg.errors import FederationError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["flat_arrays", "read_arrays"]


def flat_arrays(
    parts: Mapping[str, DataclassInstance], left_out: Collection[str] = ()
) -> dict[str, list[float]]:
    """Every field of every part, flat, under `part.field`.

    Args:
        parts: name -> record of arrays and numbers.
        left_out: fields that both sides know, or that travel in another way.
    """
    return {
        f"{part}.{name}": np.asarray(getattr(record, name)).ravel().tolist()
        for part, record in parts.items()
        for name in _travelling(record, left_out)
    }


def read_arrays(
    arrays: Mapping[str, list[float]],
    empty: Mapping[str, DataclassInstance],
    left_out: Collection[str] = (),
    signed: Collection[str] = (),
) -> dict[str, Any]:
    """The parts with the numbers of a document, each in the shape and kind of the empty part's.

    Args:
        arrays: of a document.
        empty: the same parts, of nobody; fields left out keep their values.
        left_out: as in `flat_arrays`.
        signed: names `part.field` of sums that may be negative.

    Raises:
        FederationError: FECG-503 arrays that are missing, unknown, of another length or kind.
    """
    expected = {f"{part}.{name}" for part, record in empty.items() for name in _travelling(record, left_out)}
    if set(arrays) != expected:
        raise FederationError(
            "FECG-503",
            "sums of a reply",
            found=f"{len(set(arrays) ^ expected)} arrays that are missing or unknown",
            expected=f"{len(expected)} arrays, those of this version",
        )
    read: dict[str, Any] = {}
    for part, record in empty.items():
        keys = {name: f"{part}.{name}" for name in _travelling(record, left_out)}
        values = {
            name: _like(getattr(record, name), key, arrays[key], key in signed) for name, key in keys.items()
        }
        read[part] = replace(record, **values)
    return read


def _travelling(part: DataclassInstance, left_out: Collection[str]) -> list[str]:
    return [field.name for field in fields(part) if field.name not in left_out]


def _like(template: NDArray[np.generic] | float, name: str, values: list[float], signed: bool) -> object:
    """Numbers in the shape and kind of a template, which is an array, an int or a float."""
    shape, whole = np.shape(template), np.issubdtype(np.asarray(template).dtype, np.integer)
    column = np.array(values, dtype=np.float64)
    wrong = 0 if signed else int(np.sum(column < 0))
    if whole:
        wrong += int(np.sum(column != np.round(column)))
    if column.size != math.prod(shape) or wrong:
        kind = "counts" if whole else "sums"
        raise FederationError(
            "FECG-503",
            f"{name} of a reply",
            found=f"{column.size} numbers, {wrong} of them impossible",
            expected=f"{math.prod(shape)} {kind}" + ("" if signed else " >= 0"),
        )
    typed = column.astype(np.int64) if whole else column
    return typed.reshape(shape) if shape else typed[0].item()
