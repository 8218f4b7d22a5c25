"""Lists of checksums as publishers give them, and whether files are what they say.

In:  SHA256SUMS.txt of PhysioNet, a record of Zenodo's API, or the MD5SUMS.txt that `fetching` makes of it.
Out: `PublishedFile`s; the digest of a file. Called by `checking`, `fetching` and `transfer`.
No message names a file: in some sets a path holds a patient's number. Files are counted by the folder they lie in.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from fedecg.errors import CohortError, SettingsError
from fedecg.files import in_words

__all__ = [
    "PublishedFile",
    "by_folder",
    "chosen",
    "digest_of",
    "parse_sums",
    "parse_zenodo",
    "read_sums",
    "sums_text",
]

_LINE = re.compile(r"([0-9A-Fa-f]{32}|[0-9A-Fa-f]{64})(?:  | \*| )(.+)")
ALGORITHMS = {32: "md5", 64: "sha256"}
PIECE_BYTES = 1 << 20
FOLDERS_NAMED = 6  # in a message


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A file of a set: its path below the folder, its digest, and its size in bytes if that is said."""

    path: str
    digest: str
    size: int | None = None

    @property
    def algorithm(self) -> str:
        """ "sha256" or "md5"."""
        return ALGORITHMS[len(self.digest)]


def parse_sums(lines: Iterable[str], what: str) -> list[PublishedFile]:
    """A list of a line a file: digest, blank, path.

    Raises:
        CohortError: FECG-620 lines of another kind, paths that lead out of the folder, or nothing at all.
    """
    files, bad = [], 0
    for line in lines:
        one = _LINE.fullmatch(line.strip())
        if one and _is_inside(one[2]):
            files.append(PublishedFile(one[2], one[1].lower()))
        else:
            bad += bool(line.strip())
    if bad or not files:
        _refuse(what, f"{bad} of {bad + len(files)} lines that are no checksum and path below the folder")
    return files


def parse_zenodo(text: str, what: str) -> list[PublishedFile]:
    """The files of a record of Zenodo's API.

    Raises:
        CohortError: FECG-620 it is none, or names files that lead out of the folder.
    """
    try:
        return [_zenodo_file(one) for one in json.loads(text)["files"]] or _refuse(what, "no files")
    except (ValueError, KeyError, TypeError, AttributeError):
        _refuse(what, "no record of Zenodo with names, sizes and md5 sums of its files")


def sums_text(files: Iterable[PublishedFile]) -> str:
    """A list as md5sum and sha256sum write it."""
    return "".join(f"{one.digest}  {one.path}\n" for one in files)


def read_sums(path: Path) -> list[PublishedFile] | None:
    """The list that lies in a folder; None where there is none.

    Raises:
        CohortError: FECG-620 it cannot be read.
    """
    try:
        with path.open(encoding="utf-8") as file:  # 1.6 million lines of MIMIC-IV-ECG
            return parse_sums(file, path.name)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _refuse(path.name, in_words(error))


def chosen(files: Sequence[PublishedFile], only: Sequence[str]) -> list[PublishedFile]:
    """Those that `--only` names: by path, by a folder above them, or by a pattern with * and ?; none given: all.

    Raises:
        SettingsError: FECG-630 something is named that the set does not have.
    """
    if not only:
        return list(files)
    unmet = sum(not any(_is_meant(one.path, pattern) for one in files) for pattern in only)
    if unmet:
        raise SettingsError(
            "FECG-630",
            "--only",
            found=f"{unmet} of {len(only)} that name no file of the set",
            expected="paths, folders or patterns below its folder, as its publisher's page lists them",
            fix="In quotes: --only 'records100/*' '*.csv' LICENSE.txt",
        )
    return [one for one in files if any(_is_meant(one.path, pattern) for pattern in only)]


def by_folder(paths: Iterable[str]) -> str:
    """How many files lie where, as "records100 2, files 1": by the first folder, below training/ by the second."""
    counts = Counter(map(_group, paths))
    named = [f"{name} {count}" for name, count in counts.most_common(FOLDERS_NAMED)]
    rest = sum(counts.values()) - sum(count for _, count in counts.most_common(FOLDERS_NAMED))
    return ", ".join([*named, *([f"elsewhere {rest}"] if rest else [])])


def digest_of(path: Path, algorithm: str, told: Callable[[int], None] | None = None) -> str:
    """Digest of a file in hexadecimal.

    Args:
        told: called with the bytes of each piece that was read.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
            if told is not None:
                told(len(piece))
    return digest.hexdigest()


def _zenodo_file(one: Any) -> PublishedFile:
    algorithm, _, digest = one["checksum"].partition(":")
    if algorithm != "md5" or not re.fullmatch("[0-9a-f]{32}", digest) or not _is_inside(one["key"]):
        raise ValueError
    return PublishedFile(one["key"], digest, int(one["size"]))


def _is_inside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    drive = "\\" in path or ":" in path or "\0" in path
    return bool(parts) and not drive and not path.startswith("/") and ".." not in parts


def _is_meant(path: str, pattern: str) -> bool:
    return fnmatchcase(path, pattern) or path.startswith(pattern.rstrip("/") + "/")


def _group(path: str) -> str:
    parts = PurePosixPath(path).parts
    if len(parts) == 1:
        return parts[0]
    return "/".join(parts[:2]) if parts[0] == "training" and len(parts) > 2 else parts[0]


def _refuse(what: str, found: str) -> NoReturn:
    raise CohortError(
        "FECG-620",
        what,
        found=found,
        expected="the list of checksums as its publisher gives it",
        fix="Remove it from the folder and fetch it anew, or ask whoever gave you the folder.",
    ) from None
