"""Before a build reads in earnest: what can be built, found out in the first seconds.

    Mixture --availability, then probing what was never probed in `work`--> Ready, or ValueError

A component that cannot be read is refused with the cause and the way out, an optional one left out.
What was found sound is noted in `work/probes` and not looked at again while its files are the same.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mixtures.config import Mixture
from mixtures.optional import LeftOut, without
from pipelines import recipe
from pipelines.availability import Lack, refuse, settled
from pipelines.engine import tables
from pipelines.probing import Finding, Listed, listed, probe_component
from pipelines.reading.files import is_url
from pipelines.survey import Place
from tokenization.terminal import log, sentence


@dataclass(frozen=True)
class Ready:
    """What can be built."""

    mixture: Mixture
    """Without the optional components that cannot be read."""
    left_out: list[LeftOut]
    probed: dict[str, list[dict[str, Any]]]
    """File of `work` -> what was found sound and need not be looked at again."""


def ready(mixture: Mixture, place: Place) -> Ready:
    """The mixture as it can be built from here; nothing is written.

    Raises ValueError where a component that is not optional cannot be read. What is only doubtful
    is printed.
    """
    rest, left, lacks = settled(mixture, place, asking=True)
    refuse(mixture, lacks)
    if not place.probe:
        return Ready(rest, left, {})
    certain: dict[str, list[Finding]] = {}
    faults, probed = look_first(rest, place)
    for found in faults:
        name = f"{found.component} {found.subset}".strip()
        if found.certain:
            certain.setdefault(found.component, []).append(found)
        else:
            log(f"Probing {name}: {sentence(found.fault)} The build goes on; see `probe`.")
    absent = {name: told(faults) for name, faults in certain.items()}
    refuse(
        mixture,
        [
            Lack(component=name, what=told(faults), way=faults[0].way)
            for name, faults in certain.items()
            if not rest.components[name].optional
        ],
    )
    rest, more = without(rest, absent)
    return Ready(rest, [*left, *more], probed)


def told(faults: Sequence[Finding]) -> str:
    """The faults of one component in a sentence: the first, and the subsets that are like it."""
    first, *others = faults
    subset = f"{first.subset}: " if first.subset and others else ""
    more = f"; so are {', '.join(found.subset for found in others)}" if others else ""
    fault = first.fault.rstrip(".") if others else first.fault
    return f"{subset}{fault}{more}"


def look_first(
    mixture: Mixture, place: Place
) -> tuple[list[Finding], dict[str, list[dict[str, Any]]]]:
    """(the faults of what was never probed in `work`; file there -> what was found sound)."""
    faults: list[Finding] = []
    sound: dict[str, list[dict[str, Any]]] = {}
    told_so = False
    for name in mixture.components:
        found, key = looked_at(mixture, name, place)
        noted = tables.join(place.work, "probes", f"{key}.json")
        if tables.exists(noted):
            continue
        if found is not None and is_url(found.tree.root) and not told_so:
            log("Looking into what was never read before (probe=false: not).")
            told_so = True
        findings = list(probe_component(mixture, name, place, deep=None))
        faults += [found for found in findings if found.fault]
        if not any(found.fault for found in findings):
            sound[noted] = [asdict(found) for found in findings]
    return faults, sound


def looked_at(mixture: Mixture, name: str, place: Place) -> tuple[Listed | None, str]:
    """(the component's files where they can be listed, source, files and media as hex digits)."""
    try:
        found = listed(mixture, name, place)
    except (ValueError, OSError):
        return None, "unlisted"
    files = {subset: [f.identity for f in files] for subset, files in found.subsets.items()}
    tree = [file.identity for file in (found.media or found.tree).files]
    about = [found.about.name, found.about.version, found.tree.commit, files, tree]
    return found, recipe.fingerprint("probe", about)
