"""Processes of a test's own, forked from one that has imported their packages once.

    with Nursery("import transformers") as nursery:
        done = nursery.run("-m", "pipelines", "plan", "mixture=quickstart")  # as subprocess.run
        child = nursery.start("-c", "print(1)")  # as subprocess.Popen, to be killed

A fresh interpreter takes seconds to import what a build or a trainer needs, and most tests that
want a process want its signals, its exit or its environment, not the import. A fork beside threads
at work could wait for their locks for ever, so the process that forks asserts that it has none but
the cleaners of jemalloc and polars, which rest.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).parents[1]
SERVER = """
import json, os, runpy, sys
requests, answers = sys.stdin, os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what a package prints as it is imported is no answer
exec(sys.argv[1])
tasks = [f"/proc/self/task/{task}/comm" for task in os.listdir("/proc/self/task")]
named = {open(name).read().strip() for name in tasks}
others = {name for name in named if not name.startswith(("python", "jemalloc_bg", "polars-ooc"))}
assert not others, f"threads {others} run after the imports: no fork is safe"
for line in requests:
    asked = json.loads(line)
    child = os.fork() if "arguments" in asked else 0
    if "wait" in asked:
        pid, status = os.waitpid(asked["wait"], asked["how"])
        ended = os.waitstatus_to_exitcode(status) if pid else None
        print(json.dumps(ended), file=answers, flush=True)
    elif child:
        print(child, file=answers, flush=True)
    else:
        break
else:
    os._exit(0)
answers.close()
for number, name in ((0, os.devnull), (1, asked["out"]), (2, asked["err"])):
    file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    os.dup2(file, number)
    os.close(file)
sys.stdin, kind = open(0), asked["arguments"][0]
os.environ.update(asked["environment"])
os.chdir(asked["folder"])
sys.argv = [kind, *asked["arguments"][2:]]
if kind == "-m":
    runpy.run_module(asked["arguments"][1], run_name="__main__", alter_sys=True)
else:
    exec(compile(asked["arguments"][1], "-c", "exec"), {"__name__": "__main__"})
"""


@dataclass(frozen=True)
class Child:
    """A process that the nursery forked; what it says lies in files."""

    nursery: "Nursery"
    pid: int
    out: Path
    err: Path

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._status(os.WNOHANG)

    def wait(self) -> int:
        """Its exit status, at its end."""
        status = self._status(0)
        assert status is not None
        return status

    def send_signal(self, number: int) -> None:
        """It gets the signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def told(self) -> str:
        """What it wrote to its output, then to its errors."""
        return "".join(path.read_text() for path in (self.out, self.err) if path.exists())

    def _status(self, how: int) -> int | None:
        ended = self.nursery.ended
        if self.pid not in ended:
            status = self.nursery.ask({"wait": self.pid, "how": how})
            if status is None:
                return None
            ended[self.pid] = status
        return ended[self.pid]


class Nursery:
    """Forks children from a process in which `imports` ran under `environment`."""

    def __init__(self, imports: str, environment: Mapping[str, str] | None = None) -> None:
        self.imports = imports
        self.environment = dict(os.environ if environment is None else environment)
        self.ended: dict[int, int] = {}

    def __enter__(self) -> "Nursery":
        self.folder = tempfile.TemporaryDirectory()
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, self.imports], cwd=ROOT, env=self.environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.count = 0
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        self.folder.cleanup()

    def ask(self, request: Mapping[str, object]) -> int | None:
        """The process's answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(request), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        assert answer, "the process that forks has died: its standard error says why"
        return json.loads(answer)

    def start(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        folder: Path = ROOT,
    ) -> Child:
        """`python ARGUMENTS` (-m MODULE or -c CODE) runs there, with these variables besides."""
        self.count += 1
        out, err = (Path(self.folder.name, f"{self.count}.{name}") for name in ("out", "err"))
        request = {"arguments": arguments, "environment": dict(environment or {})}
        pid = self.ask({**request, "folder": str(folder), "out": str(out), "err": str(err)})
        assert pid is not None
        return Child(self, pid, out, err)

    def run(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        folder: Path = ROOT,
    ) -> subprocess.CompletedProcess[str]:
        """`python ARGUMENTS` has run."""
        child = self.start(*arguments, environment=environment, folder=folder)
        status = child.wait()
        told = (path.read_text() if path.exists() else "" for path in (child.out, child.err))
        return subprocess.CompletedProcess(arguments, status, *told)
