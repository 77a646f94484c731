"""Asking a server with patience: a call ends by its deadline, whatever the network does."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TypeVar

from zoo.errors import DownloadError

PATIENCE = 60.0
"""Seconds after which a server that fails to answer is given up."""
PACE = 100_000
"""Bytes a second that a connection must manage beyond that."""

Result = TypeVar("Result")


def insist(step: Callable[[], Result], deadline: float) -> Result:
    """What `step` returns, which is tried again while it fails for the network alone and there is time."""
    pause, last = 0.2, None
    while True:
        try:
            return wait_for(step, deadline)
        except Exception as exc:
            wait = max(pause, retry_after(exc))
            if not _may_pass(exc) or time.monotonic() + wait > deadline:
                raise last if last and isinstance(exc, TimeoutError) else exc  # noqa: B904 - with its own cause
            last = exc
        time.sleep(wait)
        pause = min(2 * pause, 8.0)


def wait_for(step: Callable[[], Result], deadline: float) -> Result:
    """What `step` returns. At the deadline it is left behind, since the client has waits of its own without an end."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(step())
        except BaseException as exc:
            future.set_exception(exc)

    threading.Thread(target=run, daemon=True).start()
    return future.result(timeout=max(0.0, deadline - time.monotonic()))


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """An exception and what it was raised from."""
    while True:
        yield exc
        if exc.__cause__ is None:
            return
        exc = exc.__cause__


def status_of(exc: BaseException) -> int | None:
    """The status that the server answered with, if it did."""
    for cause in _causes(exc):
        if (response := getattr(cause, "response", None)) is not None:
            return int(response.status_code)
    return None


def retry_after(exc: BaseException) -> float:
    """Seconds for which the server asks not to be asked."""
    for cause in _causes(exc):
        if (response := getattr(cause, "response", None)) is not None:
            wait = response.headers.get("Retry-After", "")
            return float(wait) if re.fullmatch(r"\d{1,9}", wait, re.ASCII) else 0.0
    return 0.0


def is_answer(exc: BaseException) -> bool:
    """Whether the server has said no, as opposed to nothing or that it cannot answer now."""
    status = status_of(exc)
    return isinstance(exc, DownloadError) or (status is not None and status < 500 and status not in (408, 412, 429))


def _may_pass(exc: BaseException) -> bool:
    """Whether it is worth trying again. A server to which there is no connection at all is not."""
    if status_of(exc) is not None:
        return not is_answer(exc)
    causes = list(_causes(exc))
    names = {base.__name__ for cause in causes for base in type(cause).__mro__}  # the library is httpx or httpx2
    if names & {"ConnectError", "OfflineModeIsEnabled", "FileMetadataError"}:
        return False
    if names & {"TransportError", "JSONDecodeError"}:
        return True
    return any(isinstance(cause, OSError) and cause.errno is None for cause in causes)  # with one, it is a full disk


def silence(exc: BaseException) -> str:
    """In what way there is no answer."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "the client is offline (HF_HUB_OFFLINE)"
    if wait := retry_after(exc):
        return f"{constants.ENDPOINT} asks to wait for {wait:.0f} seconds"
    found = f"{type(exc).__name__} {first_line(exc)}".strip()
    return f"{constants.ENDPOINT} gives no sound answer, tried for at most {PATIENCE:.0f} seconds ({found})"


def first_line(exc: BaseException) -> str:
    """Without the query of an address, which may hold a signature."""
    return re.sub(r"\?[^\s'\"]+", "", (str(exc).strip().splitlines() or [""])[0])[:200]
