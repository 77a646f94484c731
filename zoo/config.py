"""Strict readers of JSON and YAML, with signatures as schemas.

A file becomes dicts, lists, strings and numbers. Before a class or function is called with them, `bind` checks them
against its signature.
"""

from __future__ import annotations

import difflib
import inspect
import json
import math
import re
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from zoo.errors import ConfigError

MAX_BYTES = 2**17
"""Largest size of a JSON or YAML file in bytes; larger files are refused unread."""

MAX_ITEMS = 10_000
"""Largest length of a list or dict in a configuration."""

MAX_INTEGER = 2**63 - 1
"""Largest magnitude of an integer in a configuration."""

_NONE = type(None)


def brief(value: object, width: int = 60) -> str:
    """Returns `repr(value)` in one line of at most `width` characters, for messages about untrusted values."""
    if isinstance(value, str | bytes) and len(value) > width:
        value = value[:width]
    elif isinstance(value, list | tuple | dict) and len(value) > width:
        return f"a {type(value).__name__} of {len(value)} entries"
    elif isinstance(value, int) and value.bit_length() > 200:
        return f"an integer of {value.bit_length()} bits"
    try:
        text = repr(value)
    except RecursionError:
        return f"a {type(value).__name__} nested too deeply"
    return text if len(text) <= width else text[: width - 3] + "..."


def listed(names: Iterable[str], width: int = 100) -> str:
    """Joins names with commas: as many as fit into `width` characters, but at least one."""
    text = ""
    for name in names:
        short = name if len(name) <= 60 else f"{name[:57]}..."
        if text and len(text) + len(short) + 2 > width:
            return f"{text}, ..."
        text = f"{text}, {short}" if text else short
    return text


def reason(error: BaseException, width: int = 150) -> str:
    """Returns the message of an error in one line of at most `width` characters, or its type if there is no message."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= width else text[: width - 3] + "..."


def near(name: str, known: Iterable[str]) -> str:
    """Returns the end of a sentence about an unknown name: similar known names, or else the first known ones."""
    names = sorted(known)
    close = difflib.get_close_matches(name[:100], names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(map(repr, close))}?"
    return f"known: {listed(names) or 'none'}"


# ------------------------------------------------------------------------------------------------------------ files


def read_bytes(path: Path, limit: int, error: type[Exception] = ConfigError) -> bytes:
    """Reads a regular file.

    Args:
        path: The file.
        limit: Largest size in bytes.
        error: Type of the error that is raised.

    Raises:
        error: There is no such file, it is larger, or it cannot be read.
    """
    try:
        if not path.is_file():
            raise error(f"{path}: " + ("expected a file, found something else" if path.exists() else "no such file"))
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as exc:
        raise error(f"{path}: cannot be read: {exc.strerror or exc}; check its permissions") from exc
    if len(content) > limit:
        raise error(f"{path}: expected at most {limit} bytes, found more; this is not a file of the zoo")
    return content


def _text(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise ConfigError(
            f"{where}: expected UTF-8 text, found byte {content[exc.start]:#04x} at {exc.start}"
        ) from None


def parse_json(content: bytes, where: str) -> dict[str, Any]:
    """Parses a JSON object, which must not have duplicate keys, NaN, infinities or integers beyond 64 bits.

    Args:
        content: The JSON text.
        where: Beginning of the error message, such as the name of the file.

    Raises:
        ConfigError: The text is not such an object. The message names the key or the position.
    """

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(items)
        if len(result) < len(items):
            seen: set[str] = set()
            twice = next(key for key, _ in items if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise ConfigError(f"{where}: key {brief(twice)} occurs twice; keep one")
        return result

    def number(text: str) -> float:
        if not math.isfinite(value := float(text)):
            raise ConfigError(f"{where}: expected finite numbers, found {brief(text)}")
        return value

    def integer(text: str) -> int:
        if len(text) > 20:
            raise ConfigError(f"{where}: expected integers of at most 64 bits, found one of {len(text)} digits")
        return int(text)

    try:
        value = json.loads(
            _text(content, where),
            object_pairs_hook=pairs,
            parse_float=number,
            parse_int=integer,
            parse_constant=number,
        )
    except json.JSONDecodeError as exc:
        raise ConfigError(f"{where}: expected JSON, found {exc.msg} at line {exc.lineno} column {exc.colno}") from None
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply; this is not a file of the zoo") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: expected a JSON object, found {brief(value)}")
    return value


def load_json(path: str | Path) -> dict[str, Any]:
    """Reads the JSON object in a file of at most `MAX_BYTES`; see `parse_json`."""
    return parse_json(read_bytes(Path(path), MAX_BYTES), str(path))


class _Loader(yaml.SafeLoader):
    """Loads safe YAML without duplicate keys or aliases; an alias can make a small file huge. 1e-3 is a number."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="an alias (*name)", problem_mark=self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:str":
                raise yaml.MarkedYAMLError(problem=f"key {brief(key.value)}", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key {brief(key.value)} twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """Parses a YAML mapping of plain values, which must not have tags, aliases or duplicate keys.

    Args:
        text: The YAML text.
        where: Beginning of the error message, such as the name of the file.

    Raises:
        ConfigError: The text is not such a mapping. The message names the line.
    """
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as exc:
        line = f" in line {exc.problem_mark.line + 1}" if exc.problem_mark else ""
        raise ConfigError(f"{where}: expected plain YAML, found {exc.problem or exc.context}{line}") from None
    except (yaml.YAMLError, ValueError) as exc:
        raise ConfigError(f"{where}: expected plain YAML, found {str(exc).splitlines()[0]}") from None
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply; this is not a file of the zoo") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: expected a mapping of keys to values, found {brief(value)}")
    return value


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Reads the YAML mapping in a file of at most `MAX_BYTES`; see `parse_yaml`."""
    return parse_yaml(_text(read_bytes(Path(path), MAX_BYTES), str(path)), str(path))


# ------------------------------------------------------------------------------------------- signatures as schemas


@dataclass(frozen=True)
class Between:
    """The inclusive range of a number in a signature, such as `penalty: Annotated[float, Between(0, 1e6)]`."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"between {self.low} and {self.high}"


@dataclass(frozen=True)
class Length:
    """The number of entries of a list in a signature."""

    size: int

    def __contains__(self, value: Sequence[Any]) -> bool:
        return len(value) == self.size

    def __str__(self) -> str:
        return f"with {self.size} entries"


Size = Annotated[int, Between(1, 100_000)]
"""A width, a depth or a number of classes, from 1 to 100,000."""

Fraction = Annotated[float, Between(0, 0.99)]
"""A fraction from 0 to 0.99, such as the probability of dropout."""

Shift = Annotated[int, Between(0, 100)]
"""A number of pixels, from 0 to 100."""

ImageShape = Annotated[Sequence[Size], Length(3)]
"""The shape of an image, (C, H, W)."""


def bind(target: Callable[..., Any], arguments: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Checks arguments against the annotated signature of a class or function.

    Values must be plain: None, bool, int, float, str, and lists, tuples and dicts of these. A bool does not pass as an
    integer; NaN and infinities do not pass as numbers. Integers become floats, and lists become tuples, if the
    annotation says so.

    Args:
        target: The class or function.
        arguments: The arguments by name.
        where: Beginning of the error message, such as the name of the file.

    Returns:
        The keyword arguments to call `target` with.

    Raises:
        ConfigError: A key is unknown or missing, or its value does not have the right type. The message names the key.
    """
    signature = inspect.signature(target).parameters
    annotated = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]
    hints = get_type_hints(annotated, include_extras=True)
    named = {
        name: hints.get(name, Any)
        for name, parameter in signature.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    optional = {name for name in named if signature[name].default is not inspect.Parameter.empty}
    is_open = any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.values())
    return check(arguments, named, where, optional=optional, is_open=is_open)


def check(
    values: Mapping[str, Any],
    hints: Mapping[str, Any],
    where: str,
    *,
    optional: Collection[str] = (),
    is_open: bool = False,
) -> dict[str, Any]:
    """Checks values against types, as `bind` checks arguments against a signature.

    Args:
        values: The values by key.
        hints: The type of each key.
        where: Beginning of the error message, such as the name of the file.
        optional: Keys that may be missing.
        is_open: Whether other keys are allowed.

    Returns:
        The values by key, converted to their types.

    Raises:
        ConfigError: A key is unknown or missing, or its value does not have the right type. The message names the key.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: expected a mapping of keys to values, found {brief(values)}")
    checked = {}
    for key, value in values.items():
        if not isinstance(key, str) or (key not in hints and not is_open):
            raise ConfigError(f"{where}: unknown key {brief(key)}; {near(str(key), hints)}")
        try:
            checked[key] = _coerce(value, hints.get(key, Any), f"{where}: {key}")
        except RecursionError:
            raise ConfigError(f"{where}: {key} must be {_title(hints.get(key, Any))}, nested too deeply") from None
    for key, hint in hints.items():
        if key not in checked and key not in optional:
            raise ConfigError(f"{where}: missing key {key!r}; expected {_title(hint)}")
    return checked


class _MisfitError(Exception):
    """The value does not have the type. Unions catch this and try the next type."""


def _coerce(value: Any, hint: Any, where: str) -> Any:
    """Converts a plain value to the type `hint`; raises ConfigError if it has another type."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where} must be finite, found {value}")
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise ConfigError(f"{where} must lie between -{MAX_INTEGER} and {MAX_INTEGER}, found {brief(value)}")
    if isinstance(value, list | tuple | dict) and len(value) > MAX_ITEMS:
        raise ConfigError(f"{where} must have at most {MAX_ITEMS} entries, found {len(value)}")
    try:
        return _match(value, hint, where)
    except _MisfitError:
        raise ConfigError(f"{where} must be {_title(hint)}, found {brief(value)}") from None


def _match(value: Any, hint: Any, where: str) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        value = _match(value, inner[0], where)
        if all(value in bounds for bounds in inner[1:]):
            return value
        raise _MisfitError
    if origin in (Union, types.UnionType):
        detail: Exception = _MisfitError()
        for option in inner:
            try:
                return _match(value, option, where)
            except _MisfitError:
                continue
            except ConfigError as exc:  # about an entry of a list or dict, which says more than the whole value
                detail = exc
        raise detail
    if origin is Literal:
        if any(value == option and type(value) is type(option) for option in inner):
            return value
    elif hint is Any or hint is object or hint is inspect.Parameter.empty:
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, dict | list | tuple):
            return _match(value, dict if isinstance(value, dict) else list, where)
    elif hint is None or hint is _NONE:
        if value is None:
            return None
    elif hint is float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    elif hint in (int, str, bool):
        if type(value) is hint:
            return value
    elif (origin or hint) in (list, tuple, Sequence, Iterable):
        if isinstance(value, list | tuple):
            kind = tuple if (origin or hint) is tuple else list
            if kind is tuple and inner and inner[-1] is not Ellipsis:
                if len(value) != len(inner):
                    raise _MisfitError
                kinds: Sequence[Any] = inner
            else:
                kinds = [inner[0] if inner else Any] * len(value)
            entries = zip(value, kinds, strict=True)
            return kind(_coerce(entry, k, f"{where}[{i}]") for i, (entry, k) in enumerate(entries))
    elif (origin or hint) in (dict, Mapping) and isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise _MisfitError
        return {k: _coerce(v, inner[1] if inner else Any, f"{where}.{brief(k)[1:-1]}") for k, v in value.items()}
    raise _MisfitError


def _title(hint: Any) -> str:
    """Returns the name of a type for messages."""
    if hint is Any or hint is object:
        return "plain (None, bool, int, float, str, list or dict)"
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join("null" if option is _NONE else _title(option) for option in get_args(hint))
    if get_origin(hint) is Annotated:
        kind, *bounds = get_args(hint)
        return " ".join([_title(kind), *map(str, bounds)])
    if inner := get_args(hint):
        names = ("Any" if entry is Any else "..." if entry is Ellipsis else _title(entry) for entry in inner)
        return f"{get_origin(hint).__name__}[{', '.join(names)}]"
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
