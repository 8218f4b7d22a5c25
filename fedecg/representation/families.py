"""What a probe is asked to find: PTB-XL's families of labels, from the codes that are stated of a record.

In:  codes of N records. Out: class names and labels (N, C) of a family. Called by `probes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedecg.text import scp_statements

__all__ = ["FAMILIES", "Family", "classes_of", "family_labels", "stated_codes"]

Family = Literal["superclass", "subclass", "rhythm", "form"]
FAMILIES: tuple[Family, ...] = get_args(Family)
Bool = NDArray[np.bool_]


@cache
def classes_of(family: Family) -> tuple[str, ...]:
    """Names of a family's classes, sorted: diagnostic super- or subclasses, or the codes that tell rhythm or form."""
    return tuple(sorted({name for name in _class_of_code(family).values()}))


def family_labels(codes: Sequence[Mapping[str, float]], family: Family) -> Bool:
    """(N, C) bool, a record's classes; a code counts whatever its likelihood, as in PTB-XL's own benchmark.

    Source: Strodthoff et al. 2021, IEEE J Biomed Health Inform 25:1519-28, doi 10.1109/JBHI.2020.3022989.
    """
    class_of, column = _class_of_code(family), {name: at for at, name in enumerate(classes_of(family))}
    labels = np.zeros((len(codes), len(column)), dtype=np.bool_)
    for row, stated in enumerate(codes):
        for code in stated:
            if code in class_of:
                labels[row, column[class_of[code]]] = True
    return labels


def stated_codes(codes: Sequence[Mapping[str, float]], names: Sequence[str]) -> Bool:
    """(N, len(names)) bool, whether a record states each code; other codes are passed over."""
    return np.array([[name in stated for name in names] for stated in codes], dtype=np.bool_).reshape(
        len(codes), len(names)
    )


@cache
def _class_of_code(family: Family) -> Mapping[str, str]:
    if family in ("superclass", "subclass"):
        named = {code: getattr(statement, family) for code, statement in scp_statements().items()}
        return {code: name for code, name in named.items() if name}
    return {code: code for code, statement in scp_statements().items() if family in statement.kinds}
