"""`fedecg bank build` and `show` from the shell's side: text, JSON, figures, warnings, exit statuses."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedecg.cli import main
from fedecg.report.bank_figure import draw_similarities
from fedecg.text import Bank, load_bank, make_bank, write_bank
from fedecg.text.commands import POOLINGS
from fedecg.text.whitening import WHITENINGS

pytest.importorskip("transformers")
from tiny_models import llama

Capture = pytest.CaptureFixture[str]


def bank_file(folder: Path, transform: str = WHITENINGS["half"], **more: object) -> str:
    """A bank of three statements, two of them opposites at a cosine of 0.96."""
    said = {"k1": "Conduction: left bundle branch block", "k2": "Conduction: right bundle branch block"}
    prompt_of = {**said, "k3": "Rhythm: sinus rhythm"}
    vectors = np.array([[1, 0, 0], [0.96, 0.28, 0], [0, 0, 1]], dtype=np.float32)
    provenance = {"prompts": prompt_of, "transform": transform, "statements": "made up", **more}
    write_bank(make_bank("near", list(prompt_of), vectors, provenance), folder / "near.safetensors")
    return str(folder / "near.safetensors")


def words(text: str) -> str:
    return " ".join(text.split())


def test_help_and_show_load_no_torch() -> None:
    script = (
        "import sys, fedecg.cli as cli\n"
        "for words in (['bank'], ['bank', 'build'], ['bank', 'show']):\n"
        "    try: cli.main([*words, '--help'])\n"
        "    except SystemExit as done: assert done.code == 0\n"
        "assert cli.main(['bank', 'show', 'minilm-demo']) == 0\n"
        "heavy = {'torch', 'transformers', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for said in ("Exit status: 0; 5 written, but", "never trust_remote_code", "code,description,category"):
        assert said in done.stdout


def test_the_poolings_of_the_command_are_those_of_the_encoder() -> None:
    from fedecg.text import encoder

    assert tuple(encoder.POOLINGS) == POOLINGS


def test_show_says_prompts_provenance_neighbours_and_opposites(capsys: Capture) -> None:
    assert main(["bank", "show", "minilm-demo", "--neighbours", "2"]) == 0
    told = capsys.readouterr()
    bank = load_bank("minilm-demo")
    assert bank.sha256 in told.out
    for prompt in bank.provenance["prompts"].values():
        assert prompt in told.out
    for said in (
        "model: sentence-transformers/all-MiniLM-L6-v2",
        "transform: centred over the statements, half-whitened",
        "near: CRBBB 0.86, ILBBB 0.78\n",
        "effective-rank: 44.2 of 70",
        "opposites: 82 of 82 pairs told apart (cosine < 0.9)",
        "0.861  CLBBB and CRBBB  complete left bundle branch block / complete right bundle branch block",
    ):
        assert said in told.out
    assert told.err == ""


def test_show_of_one_code_as_json(capsys: Capture) -> None:
    assert main(["bank", "show", "minilm-demo", "--code", "AFIB", "--neighbours", "1", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    [row] = shown["codes"]
    assert (row["code"], row["prompt"]) == ("AFIB", "Impulse formation: atrial fibrillation")
    assert [near["code"] for near in row["neighbours"]] == ["AFLT"]
    assert shown["sha256"] == load_bank("minilm-demo").sha256
    assert shown["provenance"]["weights-sha256"]
    assert len(shown["opposites"]) == 82
    assert shown["notes"] == []


@pytest.mark.parametrize(
    ("transform", "remedy"),
    [
        ("none", "Build it again with --whiten half or, if that is not enough, full."),
        ("half", "Build it again with --whiten full, or take another model."),
        ("full", "Word their descriptions less alike, or take another model."),
    ],
)
def test_opposites_that_are_not_told_apart_are_a_warning_with_the_remedy_and_exit_status_5(
    tmp_path: Path, transform: str, remedy: str, capsys: Capture
) -> None:
    assert main(["bank", "show", bank_file(tmp_path, WHITENINGS[transform])]) == 5
    told = capsys.readouterr()
    assert "opposites: 0 of 1 pairs told apart" in told.out
    assert "0.960  k1 and k2  left bundle branch block / right bundle branch block" in told.out
    assert (
        f"1 of 1 pairs of statements with opposite meaning are not told apart (cosine >= 0.9). {remedy}"
        in words(told.err)
    )


def test_a_bank_of_no_known_opposites_says_that_nothing_was_checked(tmp_path: Path, capsys: Capture) -> None:
    said = {"a": "Vorhofflimmern", "b": "Linksschenkelblock"}
    vectors = np.eye(2, dtype=np.float32)
    write_bank(make_bank("fremd", list(said), vectors, {"prompts": said}), tmp_path / "f.safetensors")
    assert main(["bank", "show", str(tmp_path / "f.safetensors")]) == 0
    assert "nothing was checked" in capsys.readouterr().out


def test_what_a_builder_should_know_is_said(tmp_path: Path, capsys: Capture) -> None:
    same = {"k1": "Group: LAD", "k2": "Group: LAD", "k3": "Rhythm: sinus rhythm"}
    more = {"prompts": same, "prompts-cut": 2, "max-tokens": 8}
    assert main(["bank", "show", bank_file(tmp_path, WHITENINGS["full"], **more)]) == 0
    told = words(capsys.readouterr().err)
    for said in (
        "1 code(s) have the prompt of another code",
        "2 prompt(s) are longer than 8 tokens: their end is not read",
        "1 word(s) look like abbreviations; write them out in the table: LAD",
        "fully whitened, with more dimensions than statements",
    ):
        assert said in told


@pytest.mark.parametrize(("kind", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_the_figure_is_written_the_same_each_time(
    tmp_path: Path, kind: str, start: bytes, capsys: Capture
) -> None:
    bank = bank_file(tmp_path)
    files = [tmp_path / f"{name}.{kind}" for name in ("one", "two")]
    for file in files:
        assert main(["bank", "show", bank, "--figure", str(file)]) == 5
        assert f"written: {file}" in capsys.readouterr().err.replace("\n", "")
    assert files[0].read_bytes().startswith(start)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_figure_orders_by_category_labels_every_row_and_rings_failures(tmp_path: Path) -> None:
    axes = draw_similarities(load_bank("minilm-demo")).axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert sorted(label.split()[-1] for label in labels) == sorted(load_bank("minilm-demo").codes)
    assert labels[0].startswith("left atrial overload or enlargement")
    said = [text.get_text() for text in axes.texts]
    assert said == sorted(said)
    assert "Myocardial Infarction" in said
    assert axes.get_legend() is None
    near = draw_similarities(load_bank(bank_file(tmp_path))).axes[0]
    legend = near.get_legend()
    assert legend is not None
    assert legend.get_texts()[0].get_text() == "1 opposite(s) not told apart"
    assert sorted(map(tuple, near.collections[0].get_offsets().tolist())) == [(0, 1), (1, 0)]


def test_a_bank_of_very_many_statements_is_drawn_with_categories_only() -> None:
    codes = [f"k{number}" for number in range(300)]
    vectors = np.eye(300, dtype=np.float32)
    said = {code: f"Group {number % 3}: thing {number}" for number, code in enumerate(codes)}
    figure = draw_similarities(Bank("many", tuple(codes), vectors, "", {"prompts": said}))
    assert not figure.axes[0].get_yticklabels()
    assert [text.get_text() for text in figure.axes[0].texts] == ["Group 0", "Group 1", "Group 2"]
    assert figure.get_figheight() < 40


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bank"], "required: build|show"),
        (
            ["bank", "show", "minilm-demo", "--figure", "x.gif"],
            "expected a file that ends in .png, .svg, .pdf",
        ),
        (["bank", "show", "minilm-demo", "--neighbours", "-1"], "expected"),
        (
            ["bank", "build", "--model", "m", "--name", "n", "--out", "o.safetensors", "--pooling", "max"],
            "invalid",
        ),
        (
            ["bank", "build", "--model", "m", "--name", " ", "--out", "o.safetensors"],
            "expected 1 to 80 letters",
        ),
    ],
)
def test_wrong_use_of_bank_is_exit_status_2(arguments: list[str], said: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as done:
        main(arguments)
    assert done.value.code == 2
    assert said in capsys.readouterr().err


def test_an_unknown_code_or_bank_is_exit_status_3(tmp_path: Path, capsys: Capture) -> None:
    assert main(["bank", "show", "minilm-demo", "--code", "XYZ"]) == 3
    assert "FECG-245 --code: found a code that the bank has no statement for; expected one of the 71" in (
        capsys.readouterr().err
    )
    assert main(["bank", "show", str(tmp_path / "absent.safetensors")]) == 3
    assert "FECG-241" in capsys.readouterr().err


def test_build_writes_a_bank_of_a_sites_own_table_that_loads_and_is_checked(
    tmp_path: Path, capsys: Capture
) -> None:
    table = tmp_path / "own.csv"
    table.write_text("code,description\nK1,LBBB\nK2,RBBB\nK3,AF\nK4,XYZ present\n")
    model = llama(
        tmp_path / "model", ["left right bundle branch block atrial fibrillation present"], "left", None
    )
    out = tmp_path / "own.safetensors"
    build = [
        "bank",
        "build",
        "--model",
        str(model),
        "--codes",
        str(table),
        "--name",
        "own",
        "--out",
        str(out),
    ]
    status = main(
        [*build, "--pooling", "last-token", "--whiten", "full", "--batch", "2", "--max-tokens", "5"]
    )
    told = capsys.readouterr()
    assert load_bank(out).sha256 in told.out
    assert load_bank(out).provenance["prompts"]["K2"] == "Right bundle branch block"
    assert "of 1 pairs told apart" in told.out
    assert status == (0 if "opposites: 1 of 1" in told.out else 5)
    assert "write them out in the table: XYZ" in words(told.err)
    assert f"written: {out}" in told.err.replace("\n", "")


def test_nothing_is_written_of_a_table_or_a_model_that_cannot_be_used(
    tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"not even a pickle")
    out = tmp_path / "x.safetensors"
    build = ["bank", "build", "--model", str(tmp_path), "--name", "x", "--out", str(out)]
    assert main(build) == 3
    assert "FECG-247 model folder: found no *.safetensors file in it, but pickled weights" in (
        capsys.readouterr().err
    )
    (tmp_path / "own.csv").write_text("code,description\nA,\nB,b\n")
    assert main([*build, "--codes", str(tmp_path / "own.csv")]) == 3
    assert "FECG-251" in capsys.readouterr().err
    assert not out.exists()
    assert not out.with_suffix(".json").exists()
