"""The public data sets that fedecg reads by name: where they are published, under which licence, how large they are.

In:  nothing. Out: `SETS`. Called by `checking`, `fetching` and `commands`; docs/datasets.md says the same in words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NoReturn

from fedecg.errors import PolicyError

__all__ = ["SETS", "PublishedSet", "refuse_closed"]


@dataclass(frozen=True)
class PublishedSet:
    """One data set.

    Attributes:
        name: as `[data] source` has it. title, licence, doi: as its publisher says.
        version: the one that fedecg reads.
        host: "physionet": files and SHA256SUMS.txt below `base`; "zenodo": a record of the API, files below it.
        base: where its files lie.
        page: for people.
        records: ECGs of the version, 0 = it has none.
        size_gb: of all files, roughly.
        access: "open", or "credentialed": an account, training and a signed agreement.
    """

    name: str
    title: str
    version: str
    host: Literal["physionet", "zenodo"]
    base: str
    page: str
    doi: str
    licence: str
    records: int
    size_gb: float
    access: Literal["open", "credentialed"] = "open"

    @property
    def sums(self) -> str:
        """Name of the list of checksums in a folder of the set."""
        return "SHA256SUMS.txt" if self.host == "physionet" else "MD5SUMS.txt"


_ALL = (
    PublishedSet(
        name="ptbxl",
        title="PTB-XL, a large publicly available electrocardiography dataset",
        version="1.0.3",
        host="physionet",
        base="https://physionet.org/files/ptb-xl/1.0.3",
        page="https://physionet.org/content/ptb-xl/1.0.3/",
        doi="10.13026/kfzx-aw45",
        licence="CC BY 4.0",
        records=21_799,
        size_gb=3,
    ),
    PublishedSet(
        name="code15",
        title="CODE-15%: a large scale annotated dataset of 12-lead ECGs",
        version="1.0.0",
        host="zenodo",
        base="https://zenodo.org/api/records/4916206",
        page="https://zenodo.org/records/4916206",
        doi="10.5281/zenodo.4916206",
        licence="CC BY 4.0",
        records=345_779,
        size_gb=68,
    ),
    PublishedSet(
        name="cinc2021",
        title="Will Two Do? Varying Dimensions in Electrocardiography: PhysioNet/CinC Challenge 2021",
        version="1.0.3",
        host="physionet",
        base="https://physionet.org/files/challenge-2021/1.0.3",
        page="https://physionet.org/content/challenge-2021/1.0.3/",
        doi="10.13026/34va-7q14",
        licence="CC BY 4.0",
        records=88_253,
        size_gb=13,
    ),
    PublishedSet(
        name="mimic-iv-ecg",
        title="MIMIC-IV-ECG: Diagnostic Electrocardiogram Matched Subset",
        version="1.0",
        host="physionet",
        base="https://physionet.org/files/mimic-iv-ecg/1.0",
        page="https://physionet.org/content/mimic-iv-ecg/1.0/",
        doi="10.13026/4nqg-sb35",
        licence="Open Data Commons Open Database License 1.0",
        records=800_035,
        size_gb=90,
    ),
    PublishedSet(
        name="mimic-iv",
        title="MIMIC-IV: admissions and diagnoses, for outcomes of mimic-iv-ecg",
        version="3.1",
        host="physionet",
        base="https://physionet.org/files/mimiciv/3.1",
        page="https://physionet.org/content/mimiciv/3.1/",
        doi="10.13026/kpb9-mt58",
        licence="PhysioNet Credentialed Health Data License 1.5.0",
        records=0,
        size_gb=10,
        access="credentialed",
    ),
)
SETS: Mapping[str, PublishedSet] = MappingProxyType({one.name: one for one in _ALL})


def refuse_closed(one: PublishedSet, found: str) -> NoReturn:
    """Say who may have a set, and how.

    Raises:
        PolicyError: FECG-627.
    """
    raise PolicyError(
        "FECG-627",
        one.name,
        found=found,
        expected="a set that its publisher gives to everybody",
        fix=f"Ask for access at {one.page} (account, training, signed agreement), download it there yourself, then "
        f"fedecg-simulate data check {one.name} PATH. fedecg takes no passwords.",
    )
