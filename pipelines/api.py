"""What Python programs and notebooks call; the command line is a thin shell over it.

Every function returns what its command prints, as data. Arguments say where and how to run; what
is built is said by the mixture and by `overrides` laid over it, `{"components.text.ratio": 0.2}`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from os import PathLike
from typing import TYPE_CHECKING, Any

from pipelines import arguments
from pipelines.finished_mixture import FinishedMixture, open_mixture
from pipelines.survey import Place

if TYPE_CHECKING:
    import polars as pl

    from mixtures.config import Mixture
    from pipelines.catalogue import SourceDescription
    from pipelines.estimate import Plan
    from pipelines.probing import Finding

Overrides = Mapping[str, Any] | Sequence[str]
"""`{"components.text.ratio": 0.2}`, or `["components.text.ratio=0.2"]`."""
MixtureName = str | PathLike[str]
"""Of a bundled mixture, or the path or URL of a YAML file."""


@dataclass(frozen=True)
class MixtureFile:
    """A mixture's settings, checked, and the file that they come from."""

    mixture: "Mixture"
    file: str
    """Its folder is where the mixture's own paths are looked for besides."""

    @property
    def name(self) -> str:
        """Of the mixture."""
        return self.mixture.name

    def to_yaml(self) -> str:
        """Every setting, those by default too."""
        from mixtures.mixture_file import to_yaml

        return to_yaml(self.mixture)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(self.to_yaml())}</pre>"


@dataclass(frozen=True)
class Probed:
    """What probing found, subset by subset; `str(probed)` is the table of the command."""

    findings: "list[Finding]"
    can_be_built: bool
    """False where a component that is not optional cannot be read."""
    text: str

    def __str__(self) -> str:
        """The table, the faults, and what the sources ask."""
        return self.text

    def data(self) -> dict[str, Any]:
        """What JSON can hold of it: all but the text."""
        return {
            "can_be_built": self.can_be_built,
            "findings": [asdict(found) for found in self.findings],
        }

    def _repr_html_(self) -> str:
        return f"<pre>{escape(self.text)}</pre>"


def load(mixture: MixtureName, overrides: Overrides = ()) -> MixtureFile:
    """The checked mixture of a bundled name or a YAML file, with `overrides` laid over it.

    Raises:
        ValueError: a mistake in it. FileNotFoundError: no such file.
    """
    from mixtures.reading import find

    name = str(mixture)
    return MixtureFile(arguments.load_mixture_of(name, _assignments(overrides)), find(name))


def _assignments(overrides: Overrides) -> list[str]:
    """As `key=value`; a value of Python as YAML reads it."""
    if isinstance(overrides, Mapping):
        return [
            f"{key}={value if isinstance(value, str) and value else json.dumps(value)}"
            for key, value in overrides.items()
        ]
    return list(overrides)


def _loaded(mixture: MixtureName | MixtureFile, overrides: Overrides) -> MixtureFile:
    if not isinstance(mixture, MixtureFile):
        return load(mixture, overrides)
    if overrides:
        raise ValueError(
            f"{mixture.name}: it is loaded already. Say the overrides to pipelines.load instead."
        )
    arguments.load_plugins(mixture.mixture, mixture.file)  # another's may have been loaded since
    return mixture


def _place(loaded: MixtureFile, *, output: MixtureName, **where: Any) -> Place:
    """Where to run: paths as text, `~` as the user's home."""
    paths: dict[str, Any] = {
        key: arguments.expanded(str(where.pop(key))) for key in ("work", "data")
    }
    return Place(
        beside=arguments.folder_of(loaded.file),
        output=arguments.expanded(str(output) or f"out/{loaded.name}"),
        **paths,
        **where,
    )


def plan(
    mixture: MixtureName | MixtureFile,
    *,
    overrides: Overrides = (),
    output: MixtureName = "",
    work: MixtureName = "out/work",
    data: MixtureName = "",
    hub: bool = False,
    gpu: str = "H100",
    mfu: float = 0.3,
) -> "Plan":
    """What a build would do: supply and demand, size, time and training cost; nothing is run.

    `data` is a mirror of hub repositories, `work` the cache, in which what was read before is
    measured; `hub` asks the hub for its files.
    """
    from pipelines.estimate import plan as estimated

    loaded = _loaded(mixture, overrides)
    place = _place(loaded, output=output, work=work, data=data)
    return estimated(loaded.mixture, place, hub=hub, gpu=gpu, mfu=mfu)


def plan_all(*, data: MixtureName = "") -> list[dict[str, Any]]:
    """A line per bundled mixture: tokens, length of its videos, whether it can be finished."""
    from pipelines.estimate import overview
    from tokenization.schema import Encoding

    place = Place(output="out/all", data=arguments.expanded(str(data)))
    return overview(place, encoding=Encoding)


def probing(
    mixture: MixtureName | MixtureFile,
    *,
    overrides: Overrides = (),
    work: MixtureName = "out/work",
    data: MixtureName = "",
    output: MixtureName = "",
) -> "Iterator[Finding | Probed]":
    """The findings, each when it is there, then the whole."""
    from pipelines.probing import fails, report
    from pipelines.probing import probe as findings_of

    loaded = _loaded(mixture, overrides)
    place = _place(loaded, output=output, work=work, data=data)
    found = []
    for finding in findings_of(loaded.mixture, place):
        found.append(finding)
        yield finding
    yield Probed(found, not fails(found, loaded.mixture), report(found, loaded.mixture, place))


def probe(
    mixture: MixtureName | MixtureFile,
    *,
    overrides: Overrides = (),
    work: MixtureName = "out/work",
    data: MixtureName = "",
) -> Probed:
    """Whether every subset can be read, found out by reading a few rows of each."""
    *_, last = probing(mixture, overrides=overrides, work=work, data=data)
    assert isinstance(last, Probed)
    return last


def build(
    mixture: MixtureName | MixtureFile,
    *,
    overrides: Overrides = (),
    output: MixtureName = "",
    work: MixtureName = "out/work",
    data: MixtureName = "",
    ray: str = "local",
    workers: int | None = None,
    overwrite: bool = False,
    probe: bool = True,
    report: bool = True,
) -> FinishedMixture:
    """The mixture, finished at `output` (default: out/<its name>); what is done already stays.

    `workers` CPUs are used (None: all; 0: this process alone, without Ray); `ray` is `local`,
    `auto` (the running cluster) or a cluster's address. `overwrite` replaces a finished mixture
    whose recipe differs; `report`: draw report.html.

    Raises:
        ValueError: a mistake in the mixture, a shortage, or another recipe's mixture at `output`.
        FileNotFoundError: data that is not there.
    """
    from pipelines import main_path

    loaded = _loaded(mixture, overrides)
    place = _place(
        loaded, output=output, work=work, data=data, ray=ray, workers=workers,
        overwrite=overwrite, probe=probe, report=report,
    )  # fmt: skip
    main_path.build(loaded.mixture, place)
    return open_mixture(place.output, work=place.work)


def open(folder: MixtureName, *, work: MixtureName = "out/work") -> FinishedMixture:
    """The finished mixture in a folder or under a URL; `work`: where rejected samples are.

    Raises:
        FileNotFoundError: there is none.
    """
    return open_mixture(str(folder), work=str(work))


def list_sources() -> "pl.DataFrame":
    """A line per source: name, repository, layout, licence, access, columns, what was verified."""
    import polars as pl

    from pipelines.catalogue import source_rows

    return pl.DataFrame(
        [{key: value for key, value in row.items() if key != "subsets"} for row in source_rows()]
    )


def describe_source(
    name: str, *, data: MixtureName | None = None, mirror: MixtureName | None = None
) -> "SourceDescription":
    """All that is known of a source, and its first whole sample where data is at hand."""
    from pipelines.catalogue import describe_source as described

    return described(
        name,
        data=None if data is None else str(data),
        mirror=None if mirror is None else str(mirror),
    )
