"""A chat endpoint on loopback that answers by rules: real HTTP, every kind of failure.

    with ChatServer() as server:
        server.rules["sample 3"] = [Fails(429, retry_after="0"), "no JSON at all"]
        judge(..., endpoint=server.url)

The rules of a sample, which is known by a text in its question, are used up one a request; the
answer after the last of them is a good one.
"""

import json
import re
import threading
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

NAME = re.compile(r"sample \d+")


@dataclass(frozen=True)
class Fails:
    """The request fails: with a status; cut off (0), or with no answer until `release` (-1)."""

    status: int
    retry_after: str = ""
    text: str = '{"error": {"message": "made to fail"}}'


@dataclass(frozen=True)
class Says:
    """The model says this, and ends like this."""

    text: str | None
    finish: str = "stop"
    refusal: str | None = None


class ChatServer:
    """The server, its rules, and what was asked of it."""

    def __init__(self) -> None:
        self.rules: dict[str, list[Fails | Says]] = {}
        self.always: Fails | None = None
        """For every request."""
        self.requests: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        """(sample, body, headers) of every request."""
        self.paid: Counter[str] = Counter()
        """Answers that were sent whole, by sample."""
        self.under_way = self.most_under_way = 0
        self.usage = True
        self.say = texts
        """What is written where texts are asked for."""
        self.release = threading.Event()
        self.waiting = threading.Event()
        """Some request waits for `release`."""
        self.lock = threading.Lock()
        self.stack = ExitStack()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"on": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def __enter__(self) -> "ChatServer":
        thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        self.stack.callback(thread.join)
        self.stack.callback(self.server.server_close)
        self.stack.callback(self.server.shutdown)
        self.stack.callback(self.release.set)
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    @property
    def names(self) -> list[str]:
        """Which sample each request was about."""
        return [name for name, _, _ in self.requests]

    def reply(self, name: str, body: dict[str, Any]) -> Fails | Says:
        """What becomes of a request."""
        if self.always:
            return self.always
        waiting = self.rules.get(name) or []
        if waiting:
            return waiting.pop(0)
        asks = (body.get("response_format") or {}).get("json_schema", {}).get("name")
        text = self.say(body) if asks == "rewritten" else ratings(body, score=score_of(name))
        return Says(text)


def score_of(name: str) -> int:
    """What a sample is rated where no rule says otherwise: 1 to 5."""
    return int(name.rpartition(" ")[2]) % 5 + 1


def ratings(body: dict[str, Any], *, score: Any, **changed: Any) -> str:
    """A text of as many turns as are asked for, all scores alike."""
    parts = body["messages"][0]["content"]
    text = "".join(part.get("text", "") for part in parts)
    turns = int(re.findall(r"\[(\d+) objects\]", text)[0])
    names = ("relevance", "image_correspondence", "visual_dependency", "formatting")
    turn = {"reason": "because", **dict.fromkeys(names, score), **changed}
    return json.dumps({"turns": [turn] * turns})


def texts(body: dict[str, Any], *, said: str = "anew") -> str:
    """A text of as many turns as are asked for, at least, that says which of them it is."""
    turns = body["response_format"]["json_schema"]["schema"]["properties"]["turns"]
    names, count = turns["items"]["required"], max(2, turns["minItems"])
    count = min(count, turns["maxItems"])
    made = [{name: f"The {name} {n}, {said}." for name in names} for n in range(1, count + 1)]
    return json.dumps({"turns": made})


@dataclass
class Handler(BaseHTTPRequestHandler):
    """One request."""

    on: ChatServer = field(init=False)
    protocol_version = "HTTP/1.1"

    __init__ = BaseHTTPRequestHandler.__init__  # type: ignore[assignment]

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        on, body = self.on, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/v1/chat/completions"
        text = "".join(part.get("text", "") for part in body["messages"][0]["content"])
        name = (NAME.findall(text) or ["?"])[0]
        with on.lock:
            on.requests.append((name, body, dict(self.headers)))
            on.under_way += 1
            on.most_under_way = max(on.most_under_way, on.under_way)
            reply = on.reply(name, body)
        try:
            self.answer(name, reply)
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            with on.lock:
                on.under_way -= 1

    def answer(self, name: str, reply: Fails | Says) -> None:
        if isinstance(reply, Fails) and reply.status == -1:
            self.on.waiting.set()
            self.on.release.wait(60)
            reply = Fails(0)
        if isinstance(reply, Fails) and reply.status == 0:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"choices": [')
            self.close_connection = True
            return
        if isinstance(reply, Fails):
            more = {"Retry-After": reply.retry_after} if reply.retry_after else {}
            if 300 <= reply.status < 400:
                more["Location"] = f"{self.on.url}/elsewhere"
            self.send(reply.status, reply.text.encode(), more)
            return
        message = {"role": "assistant", "content": reply.text, "refusal": reply.refusal}
        found: dict[str, Any] = {
            "choices": [{"index": 0, "message": message, "finish_reason": reply.finish}]
        }
        if self.on.usage:
            found["usage"] = {"prompt_tokens": 700, "completion_tokens": 100}
        self.send(200, json.dumps(found).encode(), {})
        with self.on.lock:
            self.on.paid[name] += 1

    def send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(data)
