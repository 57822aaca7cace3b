"""One way to build a mixture in a test, and to compare what came out."""

import hashlib
import json
from pathlib import Path

from pipelines.__main__ import main


def words(mixture: Path | str, out: Path | str, *more: str) -> list[str]:
    """`build MIXTURE` into OUT/mix, cache OUT/work, in this process, without a report (half of the
    time that so small a build takes), but for what `more` says.
    """
    place = {"output": f"{out}/mix", "work": f"{out}/work", "workers": "0", "report": "false"}
    said = {word.partition("=")[0] for word in more}
    kept = [f"{key}={value}" for key, value in place.items() if key not in said]
    return ["build", f"mixture={mixture}", *kept, *more]


def build(mixture: Path | str, out: Path, *more: str) -> Path:
    """The finished mixture OUT/mix."""
    assert main(words(mixture, out, *more)) == 0
    return out / "mix"


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file; of stats.json, of what is determined: all but its `timings`."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(determined(path)).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def determined(path: Path) -> bytes:
    if path.name != "stats.json":
        return path.read_bytes()
    stats = json.loads(path.read_text())
    stats.pop("timings", None)  # of what was read and not published there are none
    return json.dumps(stats).encode()
