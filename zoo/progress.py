"""How far a long computation has come: its loops tell, if anybody listens.

    for row in steps(range(height), "row"): ...

A loop that takes its time goes through `steps`, which gives it its items as they are unless somebody listens: a library
call shows nothing and pays nothing. Loops inside loops add up, whichever function they are in: rows of a batch, batches
of a sample. `bar` listens, and shows it on a terminal.
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
INTERVAL = 0.1  # seconds between two pictures of a bar


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
    """The items of a loop, each of which is one `unit` of its work; who listens is told before each."""
    listener = _listener.get()
    return items if listener is None else listener.follow(items, unit)


@contextmanager
def listening(tell: Callable[[float, str], None], *, interval: float = 0) -> Iterator[None]:
    """Has the loops inside, of this thread, tell how far they are before each step.

    Args:
        tell: takes the part that is over, in [0, 1], and where the loops are, such as `batch 2/4, row 12/32`.
        interval: seconds between two calls, at least.
    """
    token = _listener.set(_Listener(tell, interval))
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def bar(description: str, *, shown: bool = True) -> Iterator[None]:
    """Shows on a terminal how far the loops inside have come; elsewhere, or where not `shown`, nothing."""
    if not (shown and sys.stderr.isatty()):
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
