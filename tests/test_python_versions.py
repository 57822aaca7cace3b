"""The dependencies resolve, as wheels, for every Python that pyproject.toml names."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
VERSIONS = [
    name.rpartition(" ")[2]
    for name in PROJECT["classifiers"]
    if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", name)
]


def test_the_lowest_version_is_the_one_that_is_required():
    assert PROJECT["requires-python"] == f">={VERSIONS[0]}"
    assert VERSIONS == ["3.11", "3.12", "3.13"]


@pytest.mark.slow
@pytest.mark.timeout(900)  # the resolver reads hundreds of pages
@pytest.mark.parametrize("version", VERSIONS)
def test_dependencies_resolve(version, tmp_path):
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["train"]]
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--only-binary", ":all:",
        "--python-version", version, "--target", str(tmp_path / "none"),
        "--report", str(tmp_path / "report.json"), *wanted,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "report.json").read_text())["install"]
    names = {each["metadata"]["name"].lower().replace("_", "-") for each in found}
    for name in (re.match(r"[\w-]+", each)[0].lower() for each in wanted):
        assert name in names
