"""The command `fedecg` says which version is installed."""

from importlib.metadata import version

import pytest

from fedecg.cli import main


def test_the_version_is_that_of_the_installed_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["--version"])
    assert done.value.code == 0
    assert capsys.readouterr().out.strip() == f"fedecg {version('fedecg')}"


def test_without_arguments_it_says_where_the_commands_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "fedecg-simulate" in capsys.readouterr().out
