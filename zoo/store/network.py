"""Calls to a server, which are repeated if the network fails, and which end by a deadline in any case."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TypeVar

from zoo.errors import DownloadError

PATIENCE = 60.0
"""Time that a server has to answer, in seconds."""
PACE = 100_000
"""Slowest accepted transfer, in bytes per second. A file extends the deadline by its size divided by this pace."""

Result = TypeVar("Result")


def insist(step: Callable[[], Result], deadline: float) -> Result:
    """Calls `step` until it succeeds, fails for a reason other than the network, or the deadline is near.

    Args:
        step: A function of no arguments.
        deadline: The deadline, in seconds of `time.monotonic`.

    Returns:
        The result of `step`.

    Raises:
        Exception: The last error of `step`.
        TimeoutError: The deadline has passed, and no call has failed before.
    """
    pause, last = 0.2, None
    while True:
        try:
            return wait_for(step, deadline)
        except Exception as exc:
            wait = max(pause, retry_after(exc))
            if not _may_pass(exc) or time.monotonic() + wait > deadline:
                raise last if last and isinstance(exc, TimeoutError) else exc  # noqa: B904 - it has its own cause
            last = exc
        time.sleep(wait)
        pause = min(2 * pause, 8.0)


def wait_for(step: Callable[[], Result], deadline: float) -> Result:
    """Calls `step` in a thread and abandons it at the deadline, since the Hub's client can wait forever.

    Raises:
        TimeoutError: The deadline has passed.
    """
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(step())
        except BaseException as exc:
            future.set_exception(exc)

    threading.Thread(target=run, daemon=True).start()
    return future.result(timeout=max(0.0, deadline - time.monotonic()))


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """Yields an exception and the chain of its causes."""
    while True:
        yield exc
        if exc.__cause__ is None:
            return
        exc = exc.__cause__


def status_of(exc: BaseException) -> int | None:
    """Returns the HTTP status of the server's answer, or None if there was no answer."""
    for cause in _causes(exc):
        if (response := getattr(cause, "response", None)) is not None:
            return int(response.status_code)
    return None


def retry_after(exc: BaseException) -> float:
    """Returns how many seconds the server asks to wait before the next call."""
    for cause in _causes(exc):
        if (response := getattr(cause, "response", None)) is not None:
            wait = response.headers.get("Retry-After", "")
            return float(wait) if re.fullmatch(r"\d{1,9}", wait, re.ASCII) else 0.0
    return 0.0


def is_answer(exc: BaseException) -> bool:
    """Returns whether the server has refused, rather than given no answer or asked to try again later."""
    status = status_of(exc)
    return isinstance(exc, DownloadError) or (status is not None and status < 500 and status not in (408, 412, 429))


def _may_pass(exc: BaseException) -> bool:
    """Returns whether another attempt may succeed. It may not if there is no connection to the server at all."""
    if status_of(exc) is not None:
        return not is_answer(exc)
    causes = list(_causes(exc))
    names = {base.__name__ for cause in causes for base in type(cause).__mro__}  # the library is httpx or httpx2
    if names & {"ConnectError", "OfflineModeIsEnabled", "FileMetadataError"}:
        return False
    if names & {"TransportError", "JSONDecodeError"}:
        return True
    return any(isinstance(cause, OSError) and cause.errno is None for cause in causes)  # a full disk has an errno


def silence(exc: BaseException) -> str:
    """Returns a clause that says why there is no answer."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "the client is offline (HF_HUB_OFFLINE)"
    if wait := retry_after(exc):
        return f"{constants.ENDPOINT} asks to wait for {wait:.0f} seconds"
    found = f"{type(exc).__name__} {first_line(exc)}".strip()
    return f"{constants.ENDPOINT} gives no valid answer, tried for at most {PATIENCE:.0f} seconds ({found})"


def first_line(exc: BaseException) -> str:
    """Returns the first line of a message, without the queries of URLs, which may hold a signature."""
    return re.sub(r"\?[^\s'\"]+", "", (str(exc).strip().splitlines() or [""])[0])[:200]
