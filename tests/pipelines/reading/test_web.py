"""`data: https://...`: one file of a web server, whatever it can do."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipelines.reading.ingest import ingest
from pipelines.reading.parts import list_parts
from tests.pipelines.sources.making import write_lines, write_parquet

ROWS = [{"text": f"Text {n}."} for n in range(40)]


class Plain(SimpleHTTPRequestHandler):
    """Serves a folder, without ranges: Python's own knows none."""

    def log_message(self, *_: Any) -> None:
        pass


class Ranged(Plain):
    """The same, with ranges."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        first, _, last = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        if not first or not path.is_file():
            return super().do_GET()
        data = path.read_bytes()
        stop = min(int(last or len(data)), len(data) - 1) + 1
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{stop - 1}/{len(data)}")
        self.send_header("Content-Length", str(stop - int(first)))
        self.end_headers()
        self.wfile.write(data[int(first) : stop])
        return None

    def end_headers(self) -> None:
        self.send_header("Accept-Ranges", "bytes")
        super().end_headers()


@contextmanager
def served(folder: Path, handler: type[Plain]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def read(url: str) -> list[str]:
    parts = list_parts(source="documents", data=url)
    rows = [row for part in parts for row in ingest(part).to_pylist()]
    assert {row["defect"] for row in rows} == {None}
    return [row["messages"][0]["content"][0]["text"] for row in rows]


@pytest.mark.parametrize("query", ["", "?token=a&download=true"])
@pytest.mark.parametrize("handler", [Ranged, Plain])
@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_one_file_is_read_with_and_without_ranges(tmp_path, name, handler, query):
    write_lines(tmp_path / "a.jsonl", ROWS)
    write_parquet(tmp_path / "a.parquet", ROWS, group=9)
    write_lines(tmp_path / "b.jsonl", ROWS)
    with served(tmp_path, handler) as url:
        assert read(f"{url}/{name}{query}") == [row["text"] for row in ROWS]


def test_a_large_file_needs_ranges(tmp_path):
    rows = [{"text": f"{n} " + "a" * (1 << 16)} for n in range(90)]  # above fsspec's blocks
    write_lines(tmp_path / "a.jsonl", rows)
    with served(tmp_path, Ranged) as url:
        assert read(f"{url}/a.jsonl") == [row["text"] for row in rows]
    with (
        served(tmp_path, Plain) as url,
        pytest.raises(ValueError, match=r"no parts of a file.*Download it"),
    ):
        read(f"{url}/a.jsonl")


@pytest.mark.parametrize("handler", [Ranged, Plain])
@pytest.mark.parametrize("place", ["data/", "data", ""])
def test_a_folder_is_one_message(tmp_path, handler, place):
    write_lines(tmp_path / "data" / "a.jsonl", ROWS)
    with served(tmp_path, handler) as url:
        with pytest.raises(ValueError, match="Name one file") as caught:
            read(f"{url}/{place}?token=secret")
        assert "secret" not in str(caught.value)


def test_what_is_not_there_is_one_message(tmp_path):
    with served(tmp_path, Plain) as url, pytest.raises(FileNotFoundError, match="no file there"):
        read(f"{url}/a.jsonl?token=secret")
    with pytest.raises(ValueError, match="does not answer"):
        read(f"{url}/a.jsonl")
