"""Files that appear whole or not at all.

In:  a path and its content. Out: the file. Called wherever fedecg writes, so that what a kill leaves behind is
never taken for finished.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from fedecg.errors import RunError

__all__ = ["write_whole"]


def write_whole(path: Path, content: bytes | str) -> None:
    """Write beside the target, sync, then rename; makes the folder.

    Raises:
        RunError: FECG-601 if the file cannot be written; nothing half-written stays behind.
    """
    if not path.name:
        raise RunError(
            "FECG-601",
            "file",
            found="a folder",
            expected="the name of a file",
            fix="Add a file name to --out.",
        )
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise RunError(
            "FECG-601",
            f"file {path.name}",
            found=type(error).__name__,
            expected="a folder that can be written, with space left",
            fix="Choose another --out, or free space on that disk.",
        ) from None
    finally:  # after a fault or Ctrl-C; when all went well it has been renamed
        with suppress(OSError):
            part.unlink()
