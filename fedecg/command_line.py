"""The skeleton of a command line: one program, its commands, how each ends.

In:  a program's words and the functions that its commands call. Out: a parser that teaches; an exit status, with one
message instead of a traceback and, where `--json` was asked for, that message as a document.
Called by `fedecg`, `fedecg-simulate`, `fedecg-server` and `fedecg-client`. Loads neither torch nor Flower.
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import sys
from collections.abc import Callable, Collection, Sequence
from importlib.metadata import version
from pathlib import Path

from fedecg.exits import exit_status
from fedecg.files import user_name

__all__ = [
    "Command",
    "Commands",
    "add_command",
    "add_group",
    "add_json",
    "named",
    "port",
    "program",
    "run",
    "seconds",
]

Commands = argparse._SubParsersAction  # argparse has no public name for it
Command = Callable[[argparse.Namespace], int]


def program(
    name: str, description: str, examples: str
) -> tuple[argparse.ArgumentParser, Commands[argparse.ArgumentParser]]:
    """A program without commands yet: `--help` with examples, `--version`; without a command it shows its help."""
    parser = argparse.ArgumentParser(
        name,
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{name} {version('fedecg')}")
    parser.set_defaults(command=None, parser=parser)
    return parser, parser.add_subparsers(metavar="COMMAND")


def add_command(
    commands: Commands[argparse.ArgumentParser],
    name: str,
    command: Command,
    words: str,
    epilog: str = "",
    *,
    folder: bool = False,
) -> argparse.ArgumentParser:
    """Hook in a command.

    Args:
        commands: of the program, or of a group.
        name: as it is typed.
        command: what it does; its result is the exit status.
        words: what it does, in one line without a full stop.
        epilog: examples, and what else its help says.
        folder: whether it takes a folder, by default the current one.
    """
    parser = commands.add_parser(
        name,
        help=words,
        description=words[0].upper() + words[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if folder:
        parser.add_argument(
            "dir", type=Path, nargs="?", default=Path(), metavar="DIR", help="default: the current folder"
        )
    parser.set_defaults(command=command, parser=parser)
    return parser


def add_group(
    commands: Commands[argparse.ArgumentParser], name: str, words: str
) -> Commands[argparse.ArgumentParser]:
    """Hook in a word that has commands of its own; alone it shows its help."""
    group = commands.add_parser(name, help=words)
    group.set_defaults(parser=group)
    return group.add_subparsers(metavar="ACTION")


def add_json(parser: argparse.ArgumentParser, words: str = "print one JSON document") -> None:
    """`--json`: the command's result as one document, and its error, too."""
    parser.add_argument("--json", action="store_true", help=words)


def run(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None, reading: Collection[str] | None = None
) -> int:
    """Do what the command line says.

    Args:
        parser: of the program.
        arguments: of the command line; None: those of this process.
        reading: commands that write nothing into their DIR, of a program whose other commands do; None: any other.

    Returns:
        The exit status. Wrong use ends with status 2 before anything is done.
    """
    options = parser.parse_args(arguments)
    if options.command is None:
        options.parser.print_help()
        return 0
    if reading is not None and options.parser.prog.removeprefix(f"{parser.prog} ") not in reading:
        words = sys.argv[1:] if arguments is None else arguments
        _note_another_owner(options.dir, [parser.prog, *words])
    return exit_status(lambda: int(options.command(options)), as_json=getattr(options, "json", False))


def _note_another_owner(folder: Path, words: Sequence[str]) -> None:
    """What root writes into the folder of a service's user, that user cannot use afterwards: said before it is done."""
    try:
        owner = folder.stat().st_uid
    except OSError:  # there is none yet, or it is the command's to say
        return
    if owner == os.geteuid():
        return
    name, own = user_name(owner), user_name(os.geteuid())
    become = ["runuser"] if os.geteuid() == 0 else ["sudo"]
    print(
        f"note: this folder belongs to the user {name}, and this command runs as {own}: what it writes, {name} may not "
        f"be able to use. As {name}: {shlex.join([*become, '-u', name, '--', *words])}",
        file=sys.stderr,
    )


def named(text: str) -> Path:
    """A path; an empty name, such as of a variable that is not set, is not the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("expected a name")
    return Path(text)


def seconds(text: str) -> float:
    """A length of time of 0 or more; argparse names this function in its message."""
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise ValueError
    return value


def port(text: str) -> int:
    """A port, or 0; argparse names this function in its message."""
    value = int(text)
    if not 0 <= value <= 65535:
        raise ValueError
    return value
