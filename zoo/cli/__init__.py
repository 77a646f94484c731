"""The `zoo` command: one function per command, in one file per group of commands.

Heavy imports stay inside the commands, so that `zoo --help`, `zoo list`, `zoo info` and messages about mistakes in the
command line appear at once.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper

from zoo.cli import look, draw, codes, pixels, measure, judge, train, share  # noqa: F401  # isort: skip - order of the help
from zoo.cli.command import COMMANDS, GROUPS, Parser
from zoo.cli.options import in_first_process, meet
from zoo.cli.train import split_recipe_keys
from zoo.config import brief, near
from zoo.errors import ConfigError, ZooError

__all__ = ["main"]

LONGEST = 1000
"""Largest number of characters of a message: 300 of our own, and paths."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: Words after `zoo`; by default those of this process.

    Returns:
        The exit status: 0, or 1 after one line on standard error.
    """
    _open_streams()
    try:
        with _warnings_in_one_line():
            _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except ZooError as error:
        return _fail(str(error))
    except BrokenPipeError:  # the reader of a table has seen enough
        _discard_output()
    except OSError as error:
        status = _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error))
        try:
            sys.stdout.flush()
        except OSError:
            _discard_output()  # or Python tries again when it exits, with a traceback
        return status
    except (MemoryError, RuntimeError) as error:  # torch has a class of its own for GPUs alone
        if not (isinstance(error, MemoryError) or re.search("(?i)tried to allocate|out of memory", str(error))):
            raise
        return _fail("not enough memory; ask for fewer images or steps at once")
    except KeyboardInterrupt:
        _fail("interrupted")
        return 130
    return 0


def _run(arguments: Sequence[str]) -> None:
    words, recipe_keys = split_recipe_keys(arguments)
    options = _parse(words)
    if options is None:
        return
    if recipe_keys and not options.takes_recipe_keys:
        raise ConfigError(f"--{next(iter(recipe_keys))}: `zoo {options.command}` takes no keys of a recipe")
    options.recipe_keys = recipe_keys
    if options.is_shared:
        options.device = meet(options.device)  # before anything can fail in one process alone
        in_first_process(lambda: options.check(options))
    else:
        options.check(options)
    COMMANDS[options.command].run(options)


def _parse(words: Sequence[str]) -> argparse.Namespace | None:
    """The options of a command; None if help or the version was asked for and printed."""
    try:
        if not words or words[0].startswith("-"):
            _overview().parse_args(words)
            raise ConfigError("expected a command; see `zoo --help`")
        name, *rest = words
        if name not in COMMANDS:
            raise ConfigError(f"no command is called {brief(name)}; {near(name, COMMANDS)}")
        return COMMANDS[name].parser().parse_args(rest)
    except SystemExit:  # of --help and --version; errors are a ZooError
        return None


def _overview() -> argparse.ArgumentParser:
    """The parser of `zoo` without a command, which knows `--help` and `--version`."""
    from zoo import __version__

    width = max(map(len, COMMANDS))
    text = "Generative models with pretrained, verified checkpoints.\n"
    for group in GROUPS:
        text += f"\n{group}\n"
        for name, command in COMMANDS.items():
            if command.group == group:
                text += f"  {name:{width}}  {command.help[0].removesuffix('.')}\n"
    parser = Parser(
        prog="zoo",
        usage="zoo COMMAND [OPTIONS]",
        description=text,
        epilog="`zoo COMMAND --help` shows the options of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"zoo {__version__}")
    return parser


def _open_streams() -> None:
    """Replaces standard streams that are closed (`>&-`), so that no other file takes their place.

    Names of files that are not text can be printed to the others, and so can characters that a terminal does not have.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    if isinstance(sys.stdout, TextIOWrapper):
        is_utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
        sys.stdout.reconfigure(errors="surrogateescape" if is_utf8 else "backslashreplace")


def _discard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Warnings look like errors; only those for programmers tell the place in the source."""

    def one_line(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        where = "" if category is UserWarning else f"{filename}:{lineno}: {category.__name__}: "
        return f"zoo: {where}{message}\n"

    usual, warnings.formatwarning = warnings.formatwarning, one_line
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _fail(message: str) -> int:
    """Prints a message in one line."""
    shown = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in message)
    print(f"zoo: {shown if len(shown) <= LONGEST else shown[:LONGEST] + '...'}", file=sys.stderr)
    return 1
