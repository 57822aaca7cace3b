"""What a mixture needs that cannot be read from here, known in the first seconds, before any row.

    Mixture, Place --lacks_of--> Lacks --settled--> the mixture that can be built, what was left out

Looked at are what the sources know of their repositories (media that lie elsewhere, gates), the
listing of a mirror, and, where the hub may be asked, whether this machine's token opens a gate. No
row is read: that is what `probe` does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mixtures.config import Component, Mixture
from mixtures.optional import LeftOut, without
from mixtures.reading import variants_of
from pipelines.engine import tables
from pipelines.reading import hub
from pipelines.reading.files import Tree, list_tree
from pipelines.reading.locate import media_tree_of, subset_files
from pipelines.reading.media_files import is_medium
from pipelines.sources import Source
from pipelines.survey import Place, source_of
from tokenization.terminal import sentence


@dataclass(frozen=True, kw_only=True)
class Lack:
    """Something without which a component cannot be read, and how to get it."""

    component: str
    what: str
    """The cause, in words that stand alone: `the videos of starb are not in ORG/NAME`."""
    need: str = ""
    """What it takes, as after `needs`: `access to ORG/NAME`."""
    way: str = ""
    """Where to get it and which key to set."""


def lacks_of(mixture: Mixture, place: Place, *, asking: bool) -> list[Lack]:
    """What the components need that is not there; `asking`: the hub may be asked."""
    found = (lack_of(mixture, name, place, asking=asking) for name in mixture.components)
    return [lack for lack in found if lack is not None]


def lack_of(mixture: Mixture, name: str, place: Place, *, asking: bool) -> Lack | None:
    """The same of one component: the first thing it lacks; null where it lacks nothing."""
    component, key = mixture.components[name], f"components.{name}"
    about = source_of(component, name)
    if component.data is not None:
        return None
    if not about.hub:
        what = f"source {about.name} reads your own files, and none are named"
        return Lack(
            component=name, what=what, need="your files", way=f"{key}.data=FILE|GLOB|FOLDER"
        )
    folder = tables.join(place.data, about.hub) if place.data else ""
    if folder and not tables.exists(folder):
        return Lack(
            component=name,
            what=f"the mirror has no folder {folder}",
            need=f"{about.hub} in the mirror",
            way=f"put a checkout of {about.hub} there, name another place with {key}.data=FOLDER, "
            "or leave out data=MIRROR",
        )
    if about.gating and not folder and not has_access(about, asking=asking):
        whose = "this machine's token has no access" if hub.has_token() else "no HF_TOKEN is set"
        if hub.is_offline():
            whose = "HF_HUB_OFFLINE is set and the hub client's cache holds nothing of it"
        return Lack(
            component=name,
            what=f"{about.hub} is gated, and {whose}",
            need=f"access to {about.hub}",
            way=f"{about.gating} (https://huggingface.co/datasets/{about.hub}), then set HF_TOKEN "
            f"to a token of that account; or name a local copy with {key}.data=FOLDER",
        )
    if component.media is not None or not (about.elsewhere or about.media_hub):
        return None
    if not folder and not asking:
        return away(about, component, name, Tree("", ()), place)
    root = folder or hub.hub_url(about.hub, about.revision)
    return away(about, component, name, list_tree(root), place)


def known_causes(mixture: Mixture) -> dict[str, str]:
    """Component -> why its media may be missing, where its source knows that they are elsewhere."""
    causes = {}
    for name, component in mixture.components.items():
        about = source_of(component, name)
        names = list(component.subsets) or list(about.default or about.subsets)
        gone = [subset for subset in names if subset in about.elsewhere]
        if gone:
            where = "; ".join(f"{subset}: {about.elsewhere[subset]}" for subset in gone)
            causes[name] = (
                f"the videos of {', '.join(gone)} are not in {about.hub}; fetch them ({where}) and "
                f"set components.{name}.media=FOLDER"
            )
    return causes


def has_access(about: Source, *, asking: bool) -> bool:
    """Whether this machine's token opens the repository; not asking: whether there is a token;
    offline: whether the repository lies in the hub client's cache.
    """
    if hub.is_offline():
        return hub.has_access(about.hub)
    return hub.has_token() and (not asking or hub.has_access(about.hub))


def away(about: Source, component: Component, name: str, tree: Tree, place: Place) -> Lack | None:
    """What the repository (listed in `tree`) is known not to hold of the component's subsets."""
    key = f"components.{name}"
    names = list(component.subsets) or list(about.default or about.subsets)
    if about.layout == "text":
        if "" not in about.elsewhere:
            return None
        return Lack(
            component=name,
            what=f"{about.hub} holds no texts",
            need=f"the texts of {about.hub}",
            way=f"{about.elsewhere['']}, and name them with {key}.data=FOLDER",
        )
    gone = [subset for subset in names if subset in about.elsewhere]
    if gone and not any(is_medium(file.name) for file in tree.files):
        where = "; ".join(f"{subset}: {about.elsewhere[subset]}" for subset in gone)
        rest = [subset for subset in names if subset not in gone]
        without_them = f", or take {', '.join(rest)} alone" if rest else ""
        return Lack(
            component=name,
            what=f"the videos of {', '.join(gone)} are not in {about.hub}, which holds annotations",
            need=f"the videos of {about.hub} ({', '.join(gone)})",
            way=f"fetch them ({where}) and set {key}.media=FOLDER{without_them}",
        )
    for subset in names if place.data else ():
        if subset not in about.media_hub or not (files := subset_files(about, tree, subset)):
            continue
        inside = files[0].name.rpartition("/")[0]
        beside = any(is_medium(f.name) and f.name.startswith(inside) for f in tree.files)
        if not beside and media_tree_of(about, tree, subset, files, mirror=place.data) is None:
            repository = about.media_hub[subset][0]
            return Lack(
                component=name,
                what=f"the videos of {subset} are not in {about.hub}, and the mirror has no folder "
                f"{tables.join(place.data, repository)}",
                need=f"{repository} in the mirror",
                way=f"put a checkout of {repository} there, or set {key}.media=FOLDER",
            )
    return None


def access_words(about: Source, component: Component, place: Place) -> str:
    """Whether the source's files are open to this machine, in a few words."""
    if component.data is not None:
        return "your own files"
    if place.data:
        return f"from the mirror{'; gated at the hub' if about.gating else ''}"
    if not about.gating:
        return "open"
    if hub.is_offline():
        cached = hub.has_access(about.hub)
        return f"gated; {'in' if cached else 'not in'} the hub client's cache"
    if not hub.has_token():
        return f"gated ({about.gating}), and no HF_TOKEN is set"
    opens = hub.has_access(about.hub)
    return f"gated; this machine's token {'has access' if opens else 'has no access'}"


def settled(
    mixture: Mixture, place: Place, *, asking: bool
) -> tuple[Mixture, list[LeftOut], list[Lack]]:
    """(the mixture without its optional components that cannot be read, those, what the others
    lack).
    """
    lacks = lacks_of(mixture, place, asking=asking)
    absent = {
        lack.component: lack.what for lack in lacks if mixture.components[lack.component].optional
    }
    rest, left = without(mixture, absent)
    return rest, left, [lack for lack in lacks if lack.component not in absent]


def refuse(mixture: Mixture, lacks: Sequence[Lack]) -> None:
    """Raises ValueError where anything is lacking: causes first, then the ways out."""
    if not lacks:
        return
    lines = [f"{mixture.name} cannot be finished:"]
    for lack in lacks:
        ratio = mixture.components[lack.component].ratio
        lines.append(
            f"  {lack.component} ({100 * ratio:.4g} %): {sentence(lack.what, indent='    ')}"
        )
        if lack.way:
            lines.append(f"    Way out: {sentence(lack.way, indent='    ')}")
    names = ", ".join(dict.fromkeys(lack.component for lack in lacks))
    variants = variants_of(mixture.name)
    as_in = f", as mixture={variants[0]} does" if variants else ""
    lines.append(f"  Or do without {names}: set the ratio to 0 and share it out{as_in}.")
    raise ValueError("\n".join(lines))
