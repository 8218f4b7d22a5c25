"""`fedecg-simulate data check`: whether a folder holds a data set, whole, in the version that fedecg reads.

In:  a set of the catalogue, its folder, which files. Out: `Checked`: counts and everything that is wrong, at once.
     Called by `commands`. Nothing is changed. Messages hold counts and folders, never the name of a record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedecg.errors import CohortError, FedecgError
from fedecg.progress import Progress
from fedecg_simulations.published.catalogue import PublishedSet
from fedecg_simulations.published.checksums import PublishedFile, by_folder, chosen, digest_of, read_sums
from fedecg_simulations.published.fetching import unpacked_name
from fedecg_simulations.published.layouts import LAYOUTS, Layout

__all__ = ["Checked", "check_set"]


@dataclass
class Checked:
    """What a folder is.

    Attributes:
        name, version: of the set. counts: what is there. faults: what is wrong, empty if nothing is.
        notes: what was not looked at.
    """

    name: str
    version: str
    counts: dict[str, int | str]
    faults: list[FedecgError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_set(
    one: PublishedSet, folder: Path, only: Sequence[str], compare: bool, progress: Progress
) -> Checked:
    """Look at layout, version, counts, files and checksums.

    Args:
        one: of the catalogue.
        folder: the set's.
        only: patterns of paths whose files are looked for and compared; counts of the whole are then not judged.
        compare: read every file and compare it with its published checksum.
        progress: told of the comparison.

    Raises:
        SettingsError: FECG-630 `only` names what the set does not have. CohortError: FECG-616 no such folder.
    """
    if not folder.is_dir():
        layout = Layout()
        layout.not_there(one.name, "no such folder", "a folder")
        raise layout.faults[0]
    layout = LAYOUTS[one.name](folder)
    checked = Checked(one.name, one.version, layout.counts, [*layout.faults], [*layout.notes])
    if only:  # a part is never as many as the whole
        counted = [fault for fault in checked.faults if fault.code == "FECG-617" and "records" in fault.found]
        checked.faults = [fault for fault in checked.faults if fault not in counted]
        if counted:
            told = "; ".join(
                f"{fault.found}, published {fault.expected.split(', as version')[0]}" for fault in counted
            )
            checked.notes.append(f"a part is not judged by its number of records ({told})")
    try:
        listed = read_sums(folder / one.sums)
    except CohortError as error:
        checked.faults.append(error)
        return checked
    if listed is None:
        checked.notes.append(
            f"no {one.sums}: files were looked for by the set's own tables and not compared; "
            f"fedecg-simulate data fetch {one.name} PATH --only {one.sums} brings it"
        )
        listed = [PublishedFile(path, "") for path in layout.files()]
        compare = False
    files = _chosen(listed, only)
    _look(one, folder, files, compare, checked, progress)
    return checked


def _chosen(listed: Sequence[PublishedFile], only: Sequence[str]) -> list[PublishedFile]:
    return chosen(listed, only) if listed else []


def _look(
    one: PublishedSet,
    folder: Path,
    files: Sequence[PublishedFile],
    compare: bool,
    checked: Checked,
    progress: Progress,
) -> None:
    """Which files are missing, and which are not what was published."""
    there, unpacked, missing = [], 0, []
    with progress.task(f"looking for the files of {one.name}", max(len(files), 1)) as advance:
        for done, file in enumerate(files, start=1):
            if (folder / file.path).is_file():
                there.append(file)
            elif (inner := unpacked_name(file.path)) and (folder / inner).is_file():
                unpacked += 1
            else:
                missing.append(file.path)
            advance(done)
    checked.counts |= {"files": len(files), "files-missing": len(missing)}
    if unpacked:
        checked.notes.append(f"{unpacked} archives are unpacked and gone: their recordings were not compared")
    if missing:
        checked.faults.append(_missing(one, len(files), missing))
    if not compare:
        return
    different = _different(one, folder, there, progress)
    checked.counts |= {"files-compared": len(there), "files-different": len(different)}
    if different:
        checked.faults.append(_altered(one, len(there), different))


def _different(
    one: PublishedSet, folder: Path, there: Sequence[PublishedFile], progress: Progress
) -> list[str]:
    different, read = [], 0
    with progress.task(f"comparing {one.name} with its checksums", max(len(there), 1)) as advance:
        for done, file in enumerate(there, start=1):
            path = folder / file.path
            read += path.stat().st_size
            if digest_of(path, file.algorithm) != file.digest:
                different.append(file.path)
            advance(done, f"{read / 1e6:.0f} MB")
    return different


def _missing(one: PublishedSet, files: int, missing: Sequence[str]) -> CohortError:
    return CohortError(
        "FECG-618",
        f"files of {one.name}",
        found=f"{len(missing)} of {files} missing ({by_folder(missing)})",
        expected="all of them",
        fix=f"Complete it: {_source_of(one)}; or check a part: --only.",
    )


def _source_of(one: PublishedSet) -> str:
    if one.access == "credentialed":
        return f"version {one.version} of {one.page}, which its users download themselves"
    return f"fedecg-simulate data fetch {one.name} PATH"


def _altered(one: PublishedSet, files: int, different: Sequence[str]) -> CohortError:
    return CohortError(
        "FECG-619",
        f"files of {one.name}",
        found=f"{len(different)} of {files} other than their published checksum says ({by_folder(different)})",
        expected="every file as published",
        fix=f"Fetch them again (what is right is kept): fedecg-simulate data fetch {one.name} PATH.",
    )
