"""The study file of a tiny study: two synthetic hospitals, one survival round of one step, nothing beside it.

In:  where the signal store lies, what differs from that. Out: text of a study file. Used by tests that run whole
     studies through the command line and want them short.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tomli_w

TINY: dict[str, dict[str, Any]] = {
    "data": {"test-patients": 60, "sites": {"city": 90, "coast": 60}},
    "signals": {"samples": 256},
    "model": {"size": "small"},
    "align": {"rounds": 0},
    "survival": {"rounds": 1, "local-steps": 1, "batch-size": 16},
    "evaluation": {"bootstrap": 0, "comparison": False, "explain": False},
}


def tiny_study(store: Path, *, name: str = "tiny", seed: int = 0, **sections: dict[str, Any]) -> str:
    """The text; keys of `sections` come to those of the same section above, or in their place."""
    tree = {**TINY, "data": {"store": str(store), **TINY["data"]}}
    for section, keys in sections.items():
        tree[section] = {**tree.get(section, {}), **keys}
    return tomli_w.dumps({"name": name, "seed": seed, **tree})
