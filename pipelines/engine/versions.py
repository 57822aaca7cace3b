"""Versions of the packages whose behaviour shows in the result: one build, one set of them."""

import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version

NAMES = (
    "av",
    "datasets",
    "datatrove",
    "decord",
    "pillow",
    "polars",
    "pyarrow",
    "ray",
    "tokenizers",
    "transformers",
)


class OtherVersionsError(ValueError):
    """A node has other versions than the driver: a user's mistake, although a worker finds it."""


@cache
def packages() -> dict[str, str]:
    """Package -> version as installed here; `none` where it is not (decord has no ARM wheel)."""

    def installed(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "none"

    return {name: installed(name) for name in NAMES}


def check(drivers: Mapping[str, str]) -> None:
    """Raises OtherVersionsError unless this process has the versions that the driver has."""
    here = packages()
    differ = [
        f"{name} {here.get(name, 'none')} here, {wanted} at the driver"
        for name, wanted in drivers.items()
        if here.get(name) != wanted
    ]
    if differ:
        raise OtherVersionsError(
            f"node {platform.node()}: {'; '.join(differ)}. Equal bytes need equal versions.\n"
            "way out: "
            "install the same on every machine (one image, or this repository's constraints.txt)."
        )
