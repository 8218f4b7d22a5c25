"""The README's Python runs as it stands there."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fedecg.signals import Recording

README = Path(__file__).resolve().parents[2] / "README.md"


def examples() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_example_of_a_prediction_runs(
    model_folder: Path,
    recordings: list[Recording],
    write_record: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (example,) = (text for text in examples() if "fedecg.load" in text)
    write_record(recordings[0], "00001_hr")
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    (tmp_path / "runs" / "demo" / "model").symlink_to(model_folder)
    (tmp_path / "records").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told[1:5]] == ["1.0", "3.0", "5.0", "10.0"]
    assert "Not a medical device" in told[-1]


def test_the_example_of_the_parts_runs(data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = (text for text in examples() if "DualAttentionEncoder" in text)
    assert "/path/to/ptb-xl" in example
    exec(compile(example.replace("/path/to/ptb-xl", str(data_root / "ptbxl")), "README.md", "exec"), {})
    assert capsys.readouterr().out == "1.0\n"


def test_every_python_example_is_run_by_a_test() -> None:
    assert len(examples()) == 2
