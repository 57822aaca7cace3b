"""Make the quickstart's data: small repositories in the hub's layouts, from what packages hold.

    python examples/quickstart.py [FOLDER]        FOLDER defaults to examples/data beside this file

Afterwards FOLDER/<org>/<name>/ looks like a checkout of that dataset repository (folders, file
names, columns, `datasets` feature metadata), so whatever reads it reads the real one. The content
is a stand-in: shapes, charts, pages, formulas and clips that come with the packages of the `demo`
extra or are drawn here. FOLDER/planted.json lists the rows that are bad on purpose.

The same packages give the same bytes. A folder that is complete and unchanged is left alone; a new
one appears whole or not at all.
"""

import hashlib
import json
import os
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path

from quickstart_data import REPOSITORIES, Planted

PACKAGES = (
    "av", "chatterbot-corpus", "datasets", "easy-vqa", "matplotlib", "numpy", "pillow", "pyarrow",
    "reasoning-gym", "scikit-image", "scikit-video", "scipy", "vega-datasets",
)  # fmt: skip
"""What the bytes depend on, beside this code and Python's own documentation."""


def identity() -> dict[str, str]:
    """Everything that determines the bytes: this code, the packages, Python."""
    here = Path(__file__).parent
    code = hashlib.sha256()
    for path in [Path(__file__), *sorted((here / "quickstart_data").glob("*.py"))]:
        code.update(path.read_bytes())
    packages = {name: version(name) for name in PACKAGES}
    return {"code": code.hexdigest(), "python": sys.version.split()[0], **packages}


def listing(folder: Path) -> dict[str, int]:
    """Relative name -> bytes of every file under `folder`, but the manifest itself."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in files
        if path != folder / "manifest.json"
    }


def is_current(folder: Path) -> bool:
    """True where `folder` was made by this code and packages, and every file is still there."""
    manifest = folder / "manifest.json"
    if not manifest.exists():
        return False
    made = json.loads(manifest.read_text())
    return made["identity"] == identity() and made["files"] == listing(folder)


def make(folder: Path, *, share: float = 1.0) -> None:
    """`folder` holds the repositories, the planted rows' list and a manifest.

    Args:
        folder: replaced if this script made it before; anything else in the way is an error.
        share: fraction of the rows to make (tests use less); planted rows are always there.
    """
    if folder.exists() and not (folder / "manifest.json").exists() and any(folder.iterdir()):
        raise ValueError(
            f"{folder}: exists and was not made by this script (no manifest.json). "
            "Name another folder or move it away."
        )
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    planted: list[Planted] = []
    with ProcessPoolExecutor(min(len(REPOSITORIES), os.cpu_count() or 1)) as pool:
        made = {
            name: pool.submit(write, partial / name, share=share)
            for name, write in REPOSITORIES.items()
        }
        for name, future in made.items():
            counts, bad = future.result()
            planted += bad
            told = ", ".join(f"{subset} {rows}" for subset, rows in counts.items())
            print(f"{name}: {told}", flush=True)
    (partial / "planted.json").write_text(
        json.dumps([row.__dict__ for row in planted], indent=1) + "\n"
    )
    manifest = {"identity": identity(), "files": listing(partial)}
    (partial / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    old = folder.with_name(folder.name + ".old")
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def main(arguments: list[str]) -> int:
    """Exit status: 0 made or already there, 2 a mistake in the call."""
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        print(__doc__, file=sys.stderr)
        return 2
    folder = Path(arguments[0]) if arguments else Path(__file__).parent / "data"
    if is_current(folder):
        print(f"{folder} is complete and unchanged; nothing to do.")
        return 0
    start = time.perf_counter()
    try:
        make(folder)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    num_bytes = sum(listing(folder).values())
    print(f"{folder}: {num_bytes / 1e6:.1f} MB in {time.perf_counter() - start:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
