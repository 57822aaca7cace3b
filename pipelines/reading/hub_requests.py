"""Requests to the hub: tried again while that may help, else refused in a readable sentence."""

import time
from collections.abc import Callable
from importlib import import_module
from typing import TypeVar

from pipelines.reading.hub_address import parse_url
from tokenization.terminal import log

TRIES = 6
"""Attempts at one request or range, 1 + 2 + 4 + 8 + 8 s apart as in huggingface_hub's own."""
MAX_PAUSE = 300.0
"""s, the longest wait that Retry-After may ask for: the hub counts requests by 5 minutes."""
LONG_PAUSE = 8.0
"""s, a wait that is told of: more than without Retry-After."""
T = TypeVar("T")


def with_retries(what: str, call: Callable[[], T]) -> T:
    """`call()`, tried again on 429, 5xx and broken connections; a refusal is a readable error."""
    from huggingface_hub import errors

    retried: tuple[type[Exception], ...] = (
        errors.LocalEntryNotFoundError,
        errors.HfHubHTTPError,
        *connection_errors(),
    )
    for attempt in range(TRIES):
        try:
            return call()
        except retried as error:
            refused = final_error(what, error)
            if refused is not None:
                raise refused from error
            if attempt == TRIES - 1:
                raise ConnectionError(
                    f"{what}: the hub does not answer after {TRIES} attempts ({error}).\n"
                    "way out: try "
                    "again later: finished parts are kept; or name a local copy with data:; or, "
                    "where it "
                    "lies in the hub client's cache, set HF_HUB_OFFLINE=1"
                ) from error
            pause = retry_delay(attempt, error)
            if pause > LONG_PAUSE:
                told = waiting_sentence(what, error, seconds=pause, attempt=attempt, tries=TRIES)
                log(told)
            time.sleep(pause)
    raise AssertionError("unreachable")


def final_error(what: str, error: Exception) -> Exception | None:
    """The error to raise for an answer that another attempt would not change; else null."""
    from huggingface_hub import errors

    if isinstance(error, errors.OfflineModeIsEnabled):
        return ValueError(
            f"{what}: HF_HUB_OFFLINE is set. Unset it, or name a local copy with data:"
        )
    if isinstance(error, errors.GatedRepoError):
        page = f"https://huggingface.co/datasets/{parse_url(what)[0]}"
        return ValueError(
            f"{what}: access is gated. Ask for it on {page} with your account, then set HF_TOKEN "
            "to a token of it; or name a local copy with data:"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ValueError(f"{what}: the hub has no such revision")
    if isinstance(error, errors.RepositoryNotFoundError):
        return ValueError(
            f"{what}: the hub has no such dataset, or it is private and HF_TOKEN is missing or may "
            "not see it. Check the name, set HF_TOKEN, or name a local copy with data:"
        )
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return FileNotFoundError(f"{what}: the hub has no such file")
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None and status != 429 and status < 500:
        return ValueError(f"{what}: the hub answered {status}: {error}")
    return None


def retry_delay(attempt: int, error: Exception) -> float:
    """Seconds to wait before the next attempt: what the hub asks for, else 1, 2, 4, 8, 8."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    asked = str(headers.get("Retry-After", ""))
    return min(float(asked), MAX_PAUSE) if asked.isdigit() else min(2.0**attempt, 8.0)


def connection_errors() -> tuple[type[Exception], ...]:
    """The exceptions of a connection that broke, in the HTTP library that the client uses."""
    from huggingface_hub import get_session

    library = import_module(type(get_session()).__module__.partition(".")[0])
    return (library.TransportError, ConnectionError, TimeoutError)


def waiting_sentence(
    what: str, error: Exception, *, seconds: float, attempt: int, tries: int
) -> str:
    """What is waited for, how long, and how often that was and will be so."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    first = (str(error).strip().splitlines() or [""])[0][:120]
    why = {
        None: f"the connection broke ({type(error).__name__}: {first})",
        409: "someone else committed in between (status 409)",
        412: "someone else committed in between (status 412)",
        429: "the hub limits how often it may be asked (status 429)",
    }.get(status, f"the hub answered {status}")
    return f"{what}: {why}; trying again in {seconds:.0f} s (attempt {attempt + 2} of {tries})."
