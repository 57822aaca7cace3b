"""More archives than a process may open files: a part holds a bounded number open."""

import json
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.pipelines.sources.making import asked, png, tar, write

COUNT, OPEN = 300, 256
CODE = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({OPEN}, {OPEN}))
from pipelines.reading.ingest import ingest
from pipelines.reading.parts import list_parts
parts = list_parts(source="llava", data=sys.argv[1], media=sys.argv[2])
rows = [row for part in parts for row in ingest(part).to_pylist()]
images = sum(len(row["images"]) for row in rows)
print(len(rows), sorted({{str(row["defect"]) for row in rows}}), images)
"""


def pack(folder: Path, kind: str) -> None:
    """COUNT archives of an image each, or one of COUNT pieces and as many images."""
    image = png(8, 6)
    if kind == "pieces":
        with zipfile.ZipFile(folder / "a.zip", "w") as archive:
            for number in range(COUNT):
                archive.writestr(f"{number}.png", image)
        data = (folder / "a.zip").read_bytes()
        size = len(data) // COUNT + 1
        for number in range(COUNT):
            write(folder / f"a.zip.{number:03}", data[number * size : (number + 1) * size])
        (folder / "a.zip").unlink()
        return
    for number in range(COUNT):
        if kind == "zip":
            with zipfile.ZipFile(folder / f"{number}.zip", "w") as archive:
                archive.writestr(f"{number}.png", image)
        else:
            tar(folder / f"{number}.{kind}", [(f"{number}.png", image)],
                "w:" + kind.partition(".")[2])  # fmt: skip


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "pieces"])
def test_many_archives_are_read_with_few_files_open(tmp_path, kind):
    (tmp_path / "media").mkdir()
    pack(tmp_path / "media", kind)
    order = [number * 7 % COUNT for number in range(COUNT)] * 2  # far apart, and once more
    rows = [asked("<image>\nWhat?", image=f"{number}.png") for number in order]
    write(tmp_path / "rows.json", json.dumps(rows))
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= OPEN
    done = subprocess.run(
        [sys.executable, "-c", CODE, tmp_path / "rows.json", tmp_path / "media"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{2 * COUNT} ['None'] {2 * COUNT}\n", done.stdout
