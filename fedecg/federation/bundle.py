"""The Flower app bundle of this installation: one settings file and no code, so that its hash is known beforehand.

In:  the installed package's version. Out: the bundle's file, and the hash that Flower gives the bundle built of it.
Called by the coordinator, which submits it, and by each site, which answers no run of any other bundle. What travels
is a name: both sides run the code that they installed themselves, and nobody unpacks a bundle that came by wire.

Source: flwr 1.39, `flwr.cli.build.build_fab_from_files` (a zip of stored files with a fixed date).
"""

from __future__ import annotations

import hashlib
import zipfile
from functools import cache
from importlib.metadata import version
from io import BytesIO

__all__ = ["BUNDLE_FILE", "bundle_bytes", "bundle_files", "bundle_sha256"]

BUNDLE_FILE = "pyproject.toml"
MANIFEST = ".info/CONTENT"
FIXED_DATE = (2024, 10, 1, 0, 0, 0)
UNIX = 3  # zip's number of the system that made an entry: the same hash on every system
# Written as Flower writes it again when it builds the bundle; a test holds the two equal.
SETTINGS = """\
[project]
name = "fedecg"
version = "{version}"
description = "Federated, multi-site training of ECG heart-failure risk models"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "fedecg"

[tool.flwr.app.components]
serverapp = "fedecg_server.app:app"
clientapp = "fedecg_client.app:app"
"""


def bundle_files() -> dict[str, str]:
    """The bundle's files before it is built: name -> text. A settings file alone, that installs nothing."""
    return {BUNDLE_FILE: SETTINGS.format(version=version("fedecg"))}


@cache
def bundle_bytes() -> bytes:
    """The bundle as Flower builds it: the file, and a list of it with its sha256 and its size in bits."""
    content, lines = BytesIO(), []
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in bundle_files().items():
            data = text.encode()
            archive.writestr(_entry(name), data)
            lines.append(f"{name},{hashlib.sha256(data).hexdigest()},{len(data) * 8}")
        archive.writestr(_entry(MANIFEST), "\n".join(lines))
    return content.getvalue()


def bundle_sha256() -> str:
    """The bundle's hash, in hex, as a SuperLink reports it with every run."""
    return hashlib.sha256(bundle_bytes()).hexdigest()


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, date_time=FIXED_DATE)
    entry.create_system = UNIX
    return entry
