"""What a command is: a function, and the parts of its parser.

    @command("Draw", NAME, option("--steps", type=whole(2), default=10, help="Images per row (default %(default)s)"))
    def walk(options: argparse.Namespace) -> None:
        '''Walk through the codes of a model.

        What stands here is printed below the options.
        '''

This is `zoo walk NAME --steps 10`. A part is a function that adds something to the parser of its command, such as an
option. The parts that several commands share are in `zoo.cli.options` and `zoo.cli.output`.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

from zoo.errors import ConfigError

GROUPS = ("Look", "Draw", "Measure", "Train", "Share")

Part: TypeAlias = Callable[[argparse.ArgumentParser], object]
Run: TypeAlias = Callable[[argparse.Namespace], None]


class Parser(argparse.ArgumentParser):
    """A parser that reports an error in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see `{self.prog} --help`")


@dataclass(frozen=True)
class Command:
    """A command of the command line.

    Attributes:
        name: What users type after `zoo`.
        group: Heading in `zoo --help`, one of `GROUPS`.
        run: Function that executes the command.
        parts: Functions that add the options to the parser.
    """

    name: str
    group: str
    run: Run
    parts: tuple[Part, ...]

    @property
    def help(self) -> tuple[str, str]:
        """The first line of the function's docstring, and the rest of it."""
        summary, _, rest = (inspect.getdoc(self.run) or "").partition("\n")
        return summary, rest.strip()

    def parser(self) -> Parser:
        """The parser of the words after the command.

        Its options have these attributes too, which parts can set (`default`):

        - command: Name of the command.
        - check: Function of the options that raises a ZooError if the command would fail. It runs first.
        - is_shared: Whether several processes can share the work of the command (`zoo.distributed`).
        - takes_recipe_keys: Whether `--section.key value` is allowed.
        """
        summary, epilog = self.help
        parser = Parser(prog=f"zoo {self.name}", description=summary, epilog=epilog)
        parser.set_defaults(command=self.name, check=lambda options: None, is_shared=False, takes_recipe_keys=False)
        parser.set_defaults(device="cpu")
        for part in self.parts:
            part(parser)
        return parser


COMMANDS: dict[str, Command] = {}
"""All commands by name, in the order of `zoo --help`."""


def command(group: str, *parts: Part) -> Callable[[Run], Run]:
    """Makes a command of a function; its docstring is the help."""

    def register(run: Run) -> Run:
        name = run.__name__.rstrip("_").replace("_", "-")
        COMMANDS[name] = Command(name, group, run, parts)
        return run

    return register


def option(*flags: str, **settings: Any) -> Part:
    """A part that is one option or argument; takes what `ArgumentParser.add_argument` takes."""
    return lambda parser: parser.add_argument(*flags, **settings)


def either(*parts: Part) -> Part:
    """A part that is several options, of which users can give one."""

    def add(parser: argparse.ArgumentParser) -> None:
        group: Any = parser.add_mutually_exclusive_group()
        for part in parts:
            part(group)

    return add


def default(**values: Any) -> Part:
    """A part that sets attributes of the options; see `Command.parser`."""
    return lambda parser: parser.set_defaults(**values)
