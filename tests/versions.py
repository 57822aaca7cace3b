"""`python tests/versions.py lowest|newest`: the parity tests on other versions of what they need.

The lowest versions that pyproject.toml allows of transformers, torch and peft, or the newest on the
index, in an environment beside .venv that takes everything else from there. Slow (torch is large):
`make parity`.
"""

import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("transformers", "torch", "peft")
TESTS = ("tests/trainer/model", "tests/trainer/test_checkpoint.py", "tests/trainer/test_step.py")


def requirements(which: str) -> list[str]:
    """Of PACKAGES: the floors of pyproject.toml, or anything."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    stated = [line for group in groups for line in group]
    floors = {
        found[1]: found[2]
        for line in stated
        if (found := re.match(r"([\w-]+)>=([\d.]+)", line)) and found[1] in PACKAGES
    }
    assert set(floors) == set(PACKAGES), floors
    return [name if which == "newest" else f"{name}=={floors[name]}" for name in PACKAGES]


def main(which: str) -> int:
    """The exit status of the tests."""
    folder = ROOT / "out" / f"versions-{which}"
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    site = next((folder / "lib").glob("python*/site-packages"))
    shared = next((ROOT / ".venv" / "lib").glob("python*/site-packages"))
    (site / "shared.pth").write_text(f"{shared.resolve()}\n")
    wanted = requirements(which)
    print("parity tests on", ", ".join(wanted), flush=True)
    install = [python, "-m", "pip", "install", "--quiet", "--upgrade", *wanted]
    subprocess.run(install, check=True)
    return subprocess.run([python, "-m", "pytest", *TESTS], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
