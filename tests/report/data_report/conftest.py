"""A site of real ECGs and made-up people, the report on it, and a folder of whatever a hospital has lying about."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from data_reports import PATIENTS, people, report

from fedecg.cli import main
from fedecg.cohort import write_cohort
from fedecg.signals import LEADS


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """A site folder: a store of real ECGs and a table of made-up people."""
    folder = tmp_path_factory.mktemp("site")
    names = sorted((data_root / "ptbxl" / "records100").rglob("*.hea"))[:PATIENTS]
    (folder / "list.txt").write_text("\n".join(map(str, names)))
    arguments = ["data", "ingest", str(folder / "list.txt"), "--out", str(folder / "store"), "--jobs", "1"]
    assert main(arguments) == 0
    write_cohort(people(), folder / "cohort.csv")
    (folder / "site.toml").write_text('name = "city"\nstore = "store"\ncohort = "cohort.csv"\n')
    with (folder / "devices.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "device", "report"])
        texts = (
            "Sinusrhythmus, Lagetyp normal",
            "sinus rhythm with left axis",
            "sinusrytm, ospecifik förändring",
            "",
        )
        for at, name in enumerate(names):
            writer.writerow(
                [name.with_suffix(""), "AT-6" if at > 2 else "<script>alert(1)</script>", texts[at % 4]]
            )
    return folder


@pytest.fixture(scope="session")
def looked(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("look")
    assert report(site, "--table", site / "devices.csv", "--out", out) == 0
    return out


@pytest.fixture(scope="session")
def oddities(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """A folder with whatever a hospital has lying about."""
    folder = tmp_path_factory.mktemp("odd") / "ecgs"
    folder.mkdir()
    for name in ("cinc2020", "wfdb_odd"):
        shutil.copytree(data_root / name, folder / name)
    marked = pd.read_csv(data_root / "code15_wfdb" / "labels.csv")
    marked = marked[marked["note"].notna()]
    assert len(marked) >= 2
    for name in marked["record"]:
        for ending in (".hea", ".dat"):
            place = folder / "code15_wfdb" / f"{Path(name).name}{ending}"
            place.parent.mkdir(exist_ok=True)
            source = data_root / "code15_wfdb" / f"{name}{ending}"
            if source.exists():
                shutil.copy(source, place)
    hostile = folder / "<img src=x onerror=alert(1)>"
    hostile.mkdir()
    for ending in (".hea", ".dat"):
        shutil.copy(
            next((data_root / "ptbxl" / "records100").rglob(f"00001_lr{ending}")),
            hostile / f"00001_lr{ending}",
        )
    (hostile / '=HYPERLINK("x")\x1b[31m.npz').write_bytes(b"PK\x03\x04 broken")
    np.savez(
        hostile / "nan.npz",
        signal=np.full((12, 5000), np.nan),
        rate_hz=500.0,
        unit="mV",
        leads=np.array(LEADS),
    )
    return folder
