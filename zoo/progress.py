"""Progress of long computations.

    for row in steps(range(height), "row"): ...

A long loop iterates over `steps(items, unit)`. Nested loops are counted together, also across functions: rows of a
batch, batches of a sample. `bar` shows the progress on a terminal. Without a listener, `steps` returns its items
unchanged, so that library calls print nothing and lose no time.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")
INTERVAL = 0.1  # seconds between two updates of a bar


@dataclass(eq=False)
class _Loop:
    unit: str
    total: int
    done: int = 0


@dataclass
class _Listener:
    tell: Callable[[float, str], None]
    interval: float
    last: float = -math.inf
    loops: list[_Loop] = field(default_factory=list)

    def follow(self, items: Collection[T], unit: str) -> Iterator[T]:
        self.loops.append(loop := _Loop(unit, len(items)))
        try:
            for item in items:
                self._tell()
                yield item
                loop.done += 1
        finally:
            self.loops.remove(loop)

    def _tell(self) -> None:
        if (now := time.monotonic()) < self.last + self.interval:
            return
        self.last = now
        over, part = 0.0, 1.0
        for loop in self.loops:
            part /= loop.total
            over += loop.done * part
        places = [f"{loop.unit} {loop.done + 1}/{loop.total}" for loop in self.loops if loop.total > 1]
        self.tell(over, ", ".join(places))


_listener: ContextVar[_Listener | None] = ContextVar("listener", default=None)


def steps(items: Collection[T], unit: str) -> Iterable[T]:
    """Iterates over the items of a loop and reports its progress to the listener, if there is one.

    Args:
        items: Items of the loop.
        unit: Name of one item, such as "row".
    """
    listener = _listener.get()
    return items if listener is None else listener.follow(items, unit)


@contextmanager
def listening(tell: Callable[[float, str], None], *, interval: float = 0) -> Iterator[None]:
    """Within this context, the loops of this thread report their progress before each step.

    Args:
        tell: Function of the completed fraction, in [0, 1], and of the positions, such as "batch 2/4, row 12/32".
        interval: Minimum number of seconds between two calls of `tell`.
    """
    token = _listener.set(_Listener(tell, interval))
    try:
        yield
    finally:
        _listener.reset(token)


def on_terminal() -> bool:
    """Whether standard error is a terminal, where bars belong, and not a file or a pipe."""
    return sys.stderr is not None and sys.stderr.isatty()


@contextmanager
def bar(description: str, *, shown: bool = True) -> Iterator[None]:
    """Within this context, the progress of the loops is shown as a bar if stderr is a terminal.

    Args:
        description: Text in front of the bar.
        shown: Whether to show the bar at all.
    """
    if not (shown and on_terminal()):
        yield
        return
    from tqdm import tqdm

    style = "{l_bar}{bar}| [{elapsed}<{remaining}{postfix}]"
    with tqdm(total=1.0, desc=description, bar_format=style, leave=False, mininterval=0, miniters=0) as line:

        def tell(over: float, places: str) -> None:
            line.set_postfix_str(places, refresh=False)
            line.update(over - line.n)

        with listening(tell, interval=INTERVAL):
            yield
