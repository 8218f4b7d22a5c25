"""Which code is this? One hash over the installed sources of the packages that a study runs.

In:  the installed package folders. Out: a sha256. Every reply and every summary carries it, so that two sites
that run different code are noticed before their updates are added up.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

__all__ = ["code_fingerprint"]

PACKAGES = ("fedecg", "fedecg_client", "fedecg_server")


@cache
def code_fingerprint(*more: str) -> str:
    """sha256 over the relative path and bytes of every source file of the study's packages.

    Args:
        more: packages beside those that a site and a server run.
    """
    digest = hashlib.sha256()
    for package in (*PACKAGES, *more):
        spec = find_spec(package)
        for folder in map(Path, (spec.submodule_search_locations or []) if spec else []):
            for file in sorted(folder.rglob("*.py")):
                digest.update(f"{package}/{file.relative_to(folder).as_posix()}\0".encode())
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
