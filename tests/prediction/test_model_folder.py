"""What `verify` says of a folder, and what it refuses: every file that was changed, removed, added or exchanged."""

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import fedecg
from fedecg.cli import main
from fedecg.config import StudySettings
from fedecg.errors import ModelError
from fedecg.model import state_outcomes
from fedecg.model.package import check_package, write_sums
from fedecg.prediction.folder import verify
from fedecg.prediction.outside import evaluate_outside, recalibrate
from fedecg.report import write_model_card

SETTINGS, WEIGHTS, CARD, CHECKLISTS, SUMS = FILES = (
    "model.json", "weights.safetensors", "model_card.md", "tripod.md", "SHA256SUMS"
)  # fmt: skip


@pytest.fixture
def copy(model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folder, tmp_path / "copy"))


@pytest.fixture
def package(copy: Path) -> Path:
    """A whole model folder, as a study leaves it."""
    write_model_card(copy, {"study": "demo"}, None, StudySettings())
    assert {path.name for path in copy.iterdir()} == set(FILES)
    return copy


@pytest.fixture
def other(make_model: Callable[..., Path], tmp_path: Path) -> Path:
    """A whole model folder of another network and another study."""
    folder = Path(shutil.copytree(make_model(baseline=None, preset="paper"), tmp_path / "other"))
    write_model_card(folder, {"study": "other"}, None, StudySettings(seed=3))
    return folder


def edit(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Change model.json on purpose: with the sum that belongs to it."""
    document = json.loads((folder / SETTINGS).read_text())
    change(document)
    (folder / SETTINGS).write_text(json.dumps(document))
    write_sums(folder, [SETTINGS])


def refusal(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What `fedecg verify` says; it must refuse, and say nothing else."""
    assert main(["verify", str(folder)]) == 3
    told = capsys.readouterr()
    assert told.out == ""
    assert str(folder) not in told.err
    return told.err


def change_a_hazard(folder: Path) -> None:
    """One digit of model.json, which stays a model in every other way: its risks are slightly others."""
    content = (folder / SETTINGS).read_text()
    assert "0.09," in content
    (folder / SETTINGS).write_text(content.replace("0.09,", "0.095,", 1))


def flip(path: Path, at: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(content)


def test_it_says_what_the_model_is(model_folder: Path) -> None:
    facts = verify(model_folder)
    assert (facts["preset"], facts["size"], facts["samples"], facts["rate-hz"]) == (
        "fedecg",
        "small",
        256,
        100,
    )
    assert facts["baseline"] == {"bins": 5, "follow-up-years": 4.11}
    assert facts["population"] == {"patients": 100}
    assert facts["recalibration"] is None
    assert facts["parameters"] == sum(
        parameter.numel() for parameter in fedecg.load(model_folder).saved.network.parameters()
    )


def test_an_aligned_model_is_sound_and_has_no_baseline(make_model: Callable[..., Path]) -> None:
    facts = verify(make_model(baseline=None, population=None))
    assert (facts["baseline"], facts["population"]) == (None, None)


def test_a_recalibrated_model_says_so(
    model_folder: Path, make_site: Callable[..., Path], tmp_path: Path
) -> None:
    model = fedecg.load(model_folder)
    recalibrate(model, evaluate_outside(model, make_site()), tmp_path / "own")
    told = verify(tmp_path / "own")["recalibration"]
    assert told["original-sha256"] == model.saved.settings_sha256
    assert told["observed"] == 14


def test_a_whole_folder_is_sound_and_says_the_hash_of_every_file(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(package), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["files"]
    assert told == {name: hashlib.sha256((package / name).read_bytes()).hexdigest() for name in FILES}


def test_sha256sum_reads_the_sums_too(package: Path) -> None:
    command = ["sha256sum", "--check", "--strict", SUMS]
    done = subprocess.run(command, cwd=package, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.count(": OK")) == (0, 4)
    flip(package / CARD, 0, 0)
    assert subprocess.run(command, cwd=package, capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize("name", [SETTINGS, WEIGHTS, CARD, CHECKLISTS])
@pytest.mark.parametrize(("at", "bit"), [(0, 0), (97, 5), (-1, 7)])
def test_a_flipped_bit_is_noticed_and_its_file_named(
    name: str, at: int, bit: int, package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(package / name, at, bit)
    assert re.match(
        rf"FECG-308 {re.escape(name)}: found sha256 \w{{12}}\.\.\.; expected \w{{12}}\.\.\. \(SHA256SUMS\)",
        refusal(package, capsys),
    )


def test_any_flipped_bit_of_the_sums_themselves_is_noticed(package: Path) -> None:
    whole = (package / SUMS).read_bytes()
    for at in range(len(whole)):
        content = bytearray(whole)
        content[at] ^= 1 << at % 8
        (package / SUMS).write_bytes(content)
        with pytest.raises(ModelError, match="FECG-308 .*SHA256SUMS"):
            check_package(package)
    (package / SUMS).write_bytes(whole)
    check_package(package)


@pytest.mark.parametrize("spoil", [lambda sums: sums + sums, lambda sums: sums[:0], lambda sums: sums[:-1]])
def test_sums_of_another_form_are_noticed(
    spoil: Callable[[bytes], bytes], package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (package / SUMS).write_bytes(spoil((package / SUMS).read_bytes()))
    assert refusal(package, capsys).startswith("FECG-308 SHA256SUMS: found lines of another form; expected")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_noticed_and_named(
    name: str, package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (package / name).unlink()
    assert refusal(package, capsys).startswith(f"FECG-306 model folder, {name}: found no such file;")


@pytest.mark.parametrize("name", [SETTINGS, WEIGHTS, CARD])
def test_a_file_that_was_removed_with_its_sum_is_noticed_where_a_model_needs_it(
    name: str, package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The card is no part of a model that has not been reported on; then it may be absent."""
    lines = (package / SUMS).read_text().splitlines(keepends=True)
    (package / SUMS).write_text("".join(line for line in lines if not line.endswith(f"  {name}\n")))
    assert f"{name}: found" in refusal(package, capsys)
    (package / name).unlink()
    assert main(["verify", str(package)]) == (0 if name == CARD else 3)


@pytest.mark.parametrize("name", ["extra.bin", ".hidden", "model.json.bak", "a\x1b[31mb"])
def test_an_added_file_is_noticed_and_named(
    name: str, package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (package / name).write_bytes(b"")
    shown = name.replace("\x1b", "?")
    assert refusal(package, capsys).startswith(
        f"FECG-308 model folder, {shown}: found 1 file(s) that SHA256SUMS does not list; expected the model's own"
    )


def test_an_added_folder_is_noticed_and_named(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (package / "more").mkdir()
    assert "FECG-308 model folder, more: found 1 file(s)" in refusal(package, capsys)


@pytest.mark.parametrize("name", FILES)
def test_files_of_two_models_exchanged_are_noticed_in_both(
    name: str, package: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, theirs = (package / name).read_bytes(), (other / name).read_bytes()
    assert mine != theirs
    (package / name).write_bytes(theirs)
    (other / name).write_bytes(mine)
    for folder in (package, other):
        told = refusal(folder, capsys)
        assert told.startswith("FECG-308 ")
        assert name in told


def test_a_model_with_the_weights_and_sums_of_another_is_noticed(
    package: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (WEIGHTS, CARD, CHECKLISTS):
        shutil.copy(other / name, package / name)
    write_sums(package, [WEIGHTS, CARD, CHECKLISTS])  # by someone who knows how
    told = refusal(package, capsys)
    assert re.match(
        r"FECG-308 weights.safetensors: found sha256 .*; expected \w{12}\.\.\. \(model.json\)", told
    )


def test_a_model_of_before_there_were_sums_gets_them_with_its_card(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (SUMS, CARD, CHECKLISTS):
        (package / name).unlink()
    fedecg.load(package)  # it can be used, but not be told sound
    assert "FECG-306 model folder, SHA256SUMS" in refusal(package, capsys)
    write_model_card(package, {"study": "demo"}, None, StudySettings())
    assert set(verify(package)["files"]) == set(FILES)


@pytest.mark.parametrize("name", [WEIGHTS, SETTINGS])
def test_new_sums_do_not_make_a_damaged_file_sound(
    name: str, package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_a_hazard(package) if name == SETTINGS else flip(package / WEIGHTS, -1, 0)
    write_model_card(package, {"study": "demo, again"}, None, StudySettings())
    assert f"FECG-308 {name}: found sha256" in refusal(package, capsys)


def test_stating_outcomes_does_not_make_a_damaged_file_sound(package: Path) -> None:
    change_a_hazard(package)
    with pytest.raises(ModelError, match="FECG-308 model.json: found sha256"):
        state_outcomes(package, "simulated")


def test_a_damaged_folder_predicts_nothing(package: Path) -> None:
    change_a_hazard(package)
    with pytest.raises(ModelError, match=r"FECG-308 model.json: found sha256 .* \(SHA256SUMS\)"):
        fedecg.load(package)


def test_an_unknown_key_is_another_format(copy: Path) -> None:
    edit(copy, lambda document: document.update({"surprise": 1}))
    with pytest.raises(ModelError, match="FECG-307 model.json"):
        verify(copy)


def test_a_hazard_that_falls_is_noticed(copy: Path) -> None:
    edit(copy, lambda document: document["baseline"].update({"cumulative-hazard": [0, 0.2, 0.1, 0.1, 0.1]}))
    with pytest.raises(ModelError, match="FECG-321|FECG-307"):
        verify(copy)
    edit(copy, lambda document: document["baseline"].update({"cumulative-hazard": [0.0, 0.2, 0.1, 0.1, 0.1]}))
    with pytest.raises(ModelError, match="FECG-321 baseline hazard"):
        verify(copy)


def test_weights_that_are_not_finite_are_noticed(make_model: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match="FECG-304 weights: found 1 of [0-9]+ tensors that are not finite"):
        verify(make_model(poison=float("inf")))
