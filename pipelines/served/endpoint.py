"""One request to an OpenAI-compatible chat endpoint: sent, tried again, or refused in a sentence.

| the server says                      | what is made of it                                      |
|--------------------------------------|---------------------------------------------------------|
| 200 with a `choices[0].message`      | Reply                                                   |
| 408, 409, 425, 429, 5xx; a broken or | tried again after Retry-After, else after a pause that  |
| silent connection; 200 without JSON  | doubles; at the end Unanswered                          |
| 401, 402, 404, 405, a redirection    | ValueError: every request would meet the same           |
| any other 4xx                        | NotTaken: this sample's verdict                         |

A redirection is not followed: the key would go along. Only the standard library is used.
"""

import email.utils
import http.client
import json
import os
import random
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_PAUSE = 300.0
"""s, the longest wait that Retry-After may ask for, as of the hub (reading/hub_requests.py)."""
LONGEST = 60.0
"""s, the longest of the pauses that double."""
MAX_BYTES = 4 << 20
"""Of a response: ratings are a few kB."""
PASSING = (408, 409, 425, 429)
"""Statuses below 500 that may pass: https://www.rfc-editor.org/rfc/rfc9110#name-client-error-4xx"""
FOR_ALL = (401, 402, 404, 405)
"""Statuses that say something of the key, the account or the address, not of a sample."""
ENVIRONMENT = re.compile(r"[A-Z_][A-Z0-9_]*\Z")


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where and how it is asked. Nothing of it but `model` determines an answer."""

    url: str
    """Up to and with `/v1`."""
    model: str
    api_key: str = field(default="", repr=False)
    """The key itself, out of the environment."""
    timeout: float = 120.0
    """s, for one answer."""
    retries: int = 5
    """Further tries of a request."""
    pause: float = 1.0
    """s before the second try; doubled before each further one."""
    per_minute: float = 0.0
    """Requests begun in a minute, at most; 0: no limit."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the model said, and what it took."""

    text: str
    finish: str
    refusal: str = ""
    input_tokens: int = 0
    """0: the server does not say."""
    output_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class NotTaken:
    """The server did not take this request, and would not if it came again."""

    status: int
    message: str


@dataclass(frozen=True, kw_only=True)
class Unanswered:
    """No answer came, for now."""

    why: str


@dataclass
class Pace:
    """When the next request may begin; shared by threads."""

    per_minute: float = 0.0
    stopped: threading.Event = field(default_factory=threading.Event)
    next: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def wait(self) -> bool:
        """The caller's turn has come; False: everything is to stop."""
        with self.lock:
            begins = max(self.next, time.monotonic())
            if self.per_minute:
                self.next = begins + 60 / self.per_minute
        return self.rest(begins - time.monotonic())

    def rest(self, seconds: float) -> bool:
        """So many seconds have passed; False: everything is to stop."""
        return not self.stopped.wait(max(0.0, seconds))

    def hold(self, seconds: float) -> None:
        """Nobody begins before so many seconds have passed: the server asked for it."""
        with self.lock:
            self.next = max(self.next, time.monotonic() + seconds)


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows nothing."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """None: the redirection is an error."""


OPENER = urllib.request.build_opener(NoRedirect)


def endpoint_of(url: str, *, model: str, api_key: str = "", **more: Any) -> Endpoint:
    """The endpoint at an address, its key out of the environment variable named by `api_key`.

    Raises:
        ValueError: no such address or variable.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"endpoint={url}: expected an address such as http://localhost:8000/v1.")
    if parts.username or parts.password or parts.query:
        raise ValueError(
            "endpoint= holds a user, a password or a query. Name the environment variable that "
            "holds the key instead: api_key=NAME."
        )
    if not model:
        raise ValueError("model= is missing: the name under which the endpoint serves it.")
    if api_key and not ENVIRONMENT.match(api_key):
        raise ValueError(
            "api_key= is not the name of an environment variable (capitals, digits and _); the key "
            "itself belongs into one: export JUDGE_KEY=..., then api_key=JUDGE_KEY."
        )
    if api_key and not os.environ.get(api_key):
        raise ValueError(f"api_key={api_key}: no environment variable of that name is set.")
    key = os.environ.get(api_key, "") if api_key else ""
    return Endpoint(url=url.rstrip("/"), model=model, api_key=key, **more)


def ask(
    endpoint: Endpoint, body: Mapping[str, Any], *, pace: Pace, permitted: Callable[[], bool]
) -> tuple[Reply | NotTaken | Unanswered, int]:
    """(What became of the request, how often it was sent); `permitted` is asked before each time.

    Raises:
        ValueError: what would meet every request.
    """
    data = json.dumps(body).encode()
    why, sent = "", 0
    for attempt in range(endpoint.retries + 1):
        if not pace.wait() or not permitted():
            return Unanswered(why=why or "stopped"), sent
        sent += 1
        try:
            return send(endpoint, data), sent
        except urllib.error.HTTPError as error:
            message = message_in(error)
            if error.code < 500 and error.code not in PASSING:
                return refused(endpoint, error.code, message), sent
            why, asked = f"status {error.code}: {message}", retry_after(error.headers)
            if asked is not None and error.code in (429, 503):
                pace.hold(asked)
        except (OSError, http.client.HTTPException, Broken) as error:
            why, asked = f"{type(error).__name__}: {error}"[:300], None
        if attempt < endpoint.retries:
            pause = min(endpoint.pause * 2**attempt, LONGEST) * random.uniform(0.75, 1.25)  # apart
            if not pace.rest(pause if asked is None else asked):
                break
    return Unanswered(why=why), sent


class Broken(Exception):
    """A response that is no answer of such an endpoint."""


def send(endpoint: Endpoint, data: bytes) -> Reply:
    """The reply to one request; raises what `urllib` raises, or Broken."""
    headers = {"Content-Type": "application/json", "User-Agent": "smolvlm-pipelines"}
    if endpoint.api_key:
        headers["Authorization"] = f"Bearer {endpoint.api_key}"
    request = urllib.request.Request(f"{endpoint.url}/chat/completions", data, headers)
    until = time.monotonic() + endpoint.timeout
    with OPENER.open(request, timeout=endpoint.timeout) as response:
        text = bytearray()
        while piece := response.read1(64 << 10):
            text += piece
            if len(text) > MAX_BYTES:
                return Reply(text="", finish="length")
            if time.monotonic() > until:
                raise TimeoutError(f"no whole answer in {endpoint.timeout:g} s")
        if response.length:
            raise Broken(f"the connection was cut {response.length} bytes before the end")
    return reply_of(bytes(text))


def reply_of(text: bytes) -> Reply:
    """The reply that a response's body is; raises Broken."""
    try:
        found = json.loads(text)
        choice = found["choices"][0]
        message = choice["message"]
        said, refusal = message.get("content") or "", message.get("refusal") or ""
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Broken(f"status 200 without an answer in it: {text[:100]!r}") from error
    if not isinstance(said, str):
        raise Broken(f"the answer's content is {type(said).__name__}, expected text")
    usage = found.get("usage")
    return Reply(
        text=said,
        finish=str(choice.get("finish_reason") or ""),
        refusal=str(refusal),
        input_tokens=count_in(usage, "prompt_tokens"),
        output_tokens=count_in(usage, "completion_tokens"),
    )


def count_in(usage: object, name: str) -> int:
    """The count of that name; 0 where none is stated."""
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if type(value) is int and value > 0 else 0


def message_in(error: urllib.error.HTTPError) -> str:
    """What the server says of the error, in short."""
    try:
        text = error.read(64 << 10).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return str(error.reason)
    try:
        found = json.loads(text)
    except ValueError:
        return " ".join(text.split())[:300] or str(error.reason)
    inner = found.get("error", found) if isinstance(found, dict) else found
    message = inner.get("message", inner) if isinstance(inner, dict) else inner
    return str(message)[:300]


def refused(endpoint: Endpoint, status: int, message: str) -> NotTaken:
    """The request's own refusal; raises ValueError for one that is not of this request."""
    if status in FOR_ALL or status < 400:
        raise ValueError(
            f"{endpoint.url}: the endpoint answered {status}: {message}\n"
            f"expected: an OpenAI-compatible endpoint that serves {endpoint.model!r}\n"
            "way out: look at endpoint= (it ends in /v1, most often), model= and api_key="
        )
    return NotTaken(status=status, message=message)


def retry_after(headers: Any) -> float | None:
    """Seconds that the server asks to wait, as a number or a date; null: it does not say."""
    stated = str((headers or {}).get("Retry-After") or "").strip()
    try:
        seconds = float(stated)
    except ValueError:
        date = email.utils.parsedate_tz(stated)
        if date is None:
            return None
        seconds = email.utils.mktime_tz(date) - time.time()
    return min(max(seconds, 0.0), MAX_PAUSE) if seconds == seconds else None
