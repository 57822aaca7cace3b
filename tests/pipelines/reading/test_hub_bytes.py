"""A component that uses 5 % of a repository fetches at most 7 % of its bytes, layout by layout.

Against a hub on loopback that counts the bytes it serves, with the buffers that users have.
"""

import json

import pyarrow as pa
import pytest

from tests.hub_server import Hub
from tests.pipelines.sources.making import IMAGE, TEXTS, cell, png, qa, write, write_parquet, zip_of

CAULDRON = pa.schema([("images", pa.list_(IMAGE)), ("texts", TEXTS)])
ROWS, WANTED = 1000, 50


@pytest.fixture(scope="module")
def images():
    """ROWS images of 14 kB, which do not compress."""
    return [png(80, 60, seed=n, kind="BMP") for n in range(ROWS)]


@pytest.fixture
def served(tmp_path, hub_python):
    """Gives what was read of the repositories in tmp_path/hub, and the bytes served by file."""

    def read(**settings):
        with Hub(tmp_path / "hub") as hub:
            words = ("-m", "tests.pipelines.reading.read_hub", json.dumps(settings))
            done = hub_python.run(*words, environment=hub.environment(tmp_path))
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout), dict(hub.served)

    return read


def size(folder) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(("files", "group"), [(1, 20), (5, 100)])
def test_images_in_parquet(tmp_path, served, images, files, group):
    folder = tmp_path / "hub/HuggingFaceM4/the_cauldron/ai2d"
    count = ROWS // files
    for number in range(files):
        some = [
            {"images": [cell(images[n])], "texts": qa((f"Q{n}", f"A{n}"))}
            for n in range(number * count, (number + 1) * count)
        ]
        name = f"train-{number:05d}-of-{files:05d}-ab.parquet"
        write_parquet(folder / name, some, schema=CAULDRON, group=group)
    found, bytes_of = served(source="cauldron", subsets=["ai2d"], wanted=WANTED)
    assert set(found["defects"]) == {None}
    rows = len(found["ids"])
    assert WANTED <= rows <= max(2 * WANTED, group)
    # a granule of rows, and the footers
    assert sum(bytes_of.values()) < rows / ROWS * size(folder) * 1.05 + files * 65_536


def test_images_in_a_zip(tmp_path, served, images):
    folder = tmp_path / "hub/lmms-lab/M4-Instruct-Data"
    talk = [{"from": "human", "value": "<image>\nQ"}, {"from": "gpt", "value": "A"}]
    records = [{"id": str(n), "image": [f"p/{n}.bmp"], "conversations": talk} for n in range(ROWS)]
    write(folder / "m4_instruct_annotations.json", records)
    packed = zip_of({f"p/{n}.bmp": data for n, data in enumerate(images)}.items())
    write(folder / "p.zip", packed)
    found, bytes_of = served(source="m4_instruct", wanted=WANTED)
    assert set(found["defects"]) == {None}
    assert WANTED <= len(found["ids"]) <= 2 * WANTED
    assert bytes_of["p.zip"] < 1.05 * len(found["ids"]) / ROWS * len(packed) + 65_536 + 80 * ROWS
