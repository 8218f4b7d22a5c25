"""Which files a model folder holds: `SHA256SUMS` names them, so that a changed, missing or strange one is noticed.

In:  a model folder. Out: its SHA256SUMS, which `sha256sum -c SHA256SUMS` reads, too.
Called by whatever writes a file of the folder (`checkpoint`, the model card) and by whatever reads one.

It finds damage and mix-ups. Someone who changes a file on purpose can write new sums: only the sha256 of SHA256SUMS,
got from the study by another way, tells the study's own model from such a one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from fedecg.errors import ModelError
from fedecg.files import in_words, read_regular, write_whole

__all__ = [
    "CARD",
    "CHECKLISTS",
    "EXPLANATION",
    "SETTINGS",
    "SUMS",
    "WEIGHTS",
    "carry_over",
    "check_file",
    "check_package",
    "listed_sums",
    "read_file",
    "write_sums",
]

SETTINGS, WEIGHTS, CARD, CHECKLISTS = "model.json", "weights.safetensors", "model_card.md", "tripod.md"
EXPLANATION = "explanation.json"  # the tests of the model's attention
SUMS = "SHA256SUMS"
NEEDED = (SETTINGS, WEIGHTS)
FILES = (*NEEDED, CARD, CHECKLISTS, EXPLANATION)
LINE = re.compile(rf"([0-9a-f]{{64}})  ({'|'.join(re.escape(name) for name in FILES)})")
COPY_AGAIN = "The file was changed or belongs to another model; copy the whole folder again."


def write_sums(folder: Path, changed: Iterable[str], forget: bool = False) -> None:
    """Write SHA256SUMS after files of the folder were written; the sums of the others stay as they are.

    Args:
        folder: of the model.
        changed: names of files just written.
        forget: the changed files are the whole model; what was listed before belonged to another.

    Raises:
        ModelError: FECG-306 a file is not readable; FECG-308 the SHA256SUMS that lies there is not one.
        RunError: FECG-601 the file cannot be written.
    """
    sums = {} if forget else listed_sums(folder)
    if sums is None:  # a model of before there were sums
        sums, changed = {}, [name for name in FILES if (folder / name).exists()]
    sums |= {name: _sha256(read_file(folder / name)) for name in changed}
    write_whole(folder / SUMS, "".join(f"{sums[name]}  {name}\n" for name in sorted(sums)))


def carry_over(name: str, source: Path, folder: Path) -> None:
    """Copy a file of one model's folder into another's, if it is there: what it says must hold of both.

    Raises:
        ModelError: FECG-306, FECG-308 it is not as the source lists it. RunError: FECG-601 it cannot be written.
    """
    if not (source / name).exists():
        return
    content = read_file(source / name)
    check_file(name, content, listed_sums(source) or {name: _sha256(content)})
    write_whole(folder / name, content)
    write_sums(folder, [name])


def listed_sums(folder: Path) -> dict[str, str] | None:
    """File name -> sha256, as SHA256SUMS has them; None where there is no such file.

    Raises:
        ModelError: FECG-306 it is not readable; FECG-308 it is of another form.
    """
    return _parse(read_file(folder / SUMS)) if (folder / SUMS).exists() else None


def check_file(name: str, content: bytes, sums: dict[str, str]) -> None:
    """Compare a file with its sum.

    Raises:
        ModelError: FECG-308, the content is another, or SHA256SUMS does not list it.
    """
    found, expected = _sha256(content), sums.get(name)
    if found != expected:
        raise ModelError(
            "FECG-308",
            name,
            found=f"sha256 {found[:12]}...",
            expected=f"{expected[:12]}... ({SUMS})" if expected else f"a file that {SUMS} lists",
            fix=COPY_AGAIN,
        )


def check_package(folder: Path) -> dict[str, str]:
    """Check that a model folder holds its own files, whole, and no others.

    Returns:
        File name -> sha256 of all its files; SHA256SUMS, which stands for the others, is among them.

    Raises:
        ModelError: FECG-306, a file is missing or not readable; FECG-308, one is not as listed, or not listed.
    """
    needed = {name: read_file(folder / name) for name in NEEDED}
    listing = read_file(folder / SUMS)
    sums = _parse(listing)
    others = {name: read_file(folder / name) for name in sums if name not in NEEDED}
    for name, content in (needed | others).items():
        check_file(name, content, sums)
    strange = sorted(path.name for path in folder.iterdir() if path.name not in {*sums, SUMS})
    if strange:
        raise ModelError(
            "FECG-308",
            f"model folder, {_printable(strange[0])}",
            found=f"{len(strange)} file(s) that {SUMS} does not list",
            expected="the model's own files",
            fix="Keep other files elsewhere; model_card.md and tripod.md come from fedecg report.",
        )
    return sums | {SUMS: _sha256(listing)}


def read_file(path: Path) -> bytes:
    """Content of a file of a model folder.

    Raises:
        ModelError: FECG-306, it is missing or not readable.
    """
    try:
        return read_regular(path)
    except OSError as error:
        raise ModelError(
            "FECG-306",
            f"model folder, {path.name}",
            found=in_words(error),
            expected="a readable file",
            fix=f"A model folder holds {WEIGHTS}, {SETTINGS} and {SUMS}.",
        ) from None


def _parse(listing: bytes) -> dict[str, str]:
    lines = listing.decode("latin-1").split("\n")  # not splitlines: it takes other bytes for ends of lines
    found = [LINE.fullmatch(line) for line in lines[:-1]]
    sums = {match[2]: match[1] for match in found if match}
    if lines[-1] or len(sums) != len(found) or not sums:
        raise ModelError(
            "FECG-308",
            SUMS,
            found="lines of another form",
            expected="a sha256, two spaces and the name of a file of a model, once each",
            fix=COPY_AGAIN,
        )
    return sums


def _printable(name: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
