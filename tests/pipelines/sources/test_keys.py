"""Every key that a source of one's own files reads is one that `sources NAME` and the docs name."""

from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from pipelines import catalogue
from pipelines.sources import SOURCES
from pipelines.sources.sample import Defect

OWN = sorted(name for name, source in SOURCES.items() if not source.hub and name != "table")
TURNS = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
SAID = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]
ROWS = (
    {},
    {"messages": TURNS},
    {"prompt": "Q", "completion": "A"},
    {"conversations": SAID},
    {"texts": [{"user": "Q", "assistant": "A"}], "file_name": "a.png"},
    {"messages": TURNS, "file_name": "a.png"},
    {"question": "Q", "answer": "A", "file_names": ["a.png"]},
    {"caption": "A.", "file_name": "a.png"},
    {"label": "cat", "file_name": "a.png"},
    {"text": "A."},
    {"content": "A."},
    {"__key__": "k", "png": b"", "txt": b"A."},
    {"__key__": "k", "png": b"", "json": b'{"caption": "A."}'},
)


class Watched(dict):
    """A row that remembers which of its keys were asked for by name."""

    def __init__(self, row):
        super().__init__(row)
        self.asked = set()

    def get(self, key, default=None):
        self.asked.add(key)
        return super().get(key, default)

    def __getitem__(self, key):
        self.asked.add(key)
        return super().__getitem__(key)

    def __contains__(self, key):
        self.asked.add(key)
        return super().__contains__(key)


@pytest.mark.parametrize("name", OWN)
def test_no_other_key_is_looked_at(name):
    source, asked = SOURCES[name], set()
    for row in [row for row in ROWS if ("__key__" in row) == (source.layout == "tar")]:
        watched = Watched(row)
        try:
            source.adapter(watched)
        except Defect:
            continue
        finally:
            asked |= watched.asked
    keys = catalogue.keys_of(source)
    assert asked
    others = {k for k in asked if not any(fnmatchcase(k, glob) for glob in keys)}
    assert others <= {"__key__"}  # of a WebDataset: the name that members share


@pytest.mark.parametrize("name", OWN)
def test_they_stand_in_the_docs_and_in_what_sources_says(name):
    page = (Path(__file__).parents[3] / "docs" / "sources.md").read_text()
    line = next(
        line
        for line in page.splitlines()
        if line.startswith(f"| `{name}` | `") or line.startswith(f"| `{name}` |  |")
    )
    said = str(catalogue.describe_source(name))
    for key in catalogue.keys_of(SOURCES[name]):
        assert f"`{key}`" in line
        assert key in said
