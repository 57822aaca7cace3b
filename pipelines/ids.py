"""What the ids of samples call their subsets, so that no two samples of a mixture share an id.

    components' files --> source/SUBSET/row, of other files of that name source/SUBSET~1a2b3c4d/row

Of components that read different files under one name, the first in the mixture keeps it; after a
later one's stands a hash of what its files hold. So a component that is added changes no id of
those before it, and ids stay where a file is moved, renamed or copied.
"""

from collections.abc import Mapping
from dataclasses import replace

from pipelines.reading.identity import digest
from pipelines.reading.parts import Listing, Part


def renamed(part: Part, called: Mapping[tuple[str, str], str]) -> Part:
    """The part under the name that its subset has in ids; another name is part of its identity."""
    name = called[part.component, part.subset]
    if name == part.subset:
        return part
    return replace(part, called=name, identity={**part.identity, "called": name})


def names_in_ids(
    listings: Mapping[str, Listing], sources: Mapping[str, str]
) -> dict[tuple[str, str], str]:
    """(component, subset) -> what ids call it; `sources`: component -> its source.

    Raises:
        ValueError: two components of one source read the same file.
    """
    called: dict[tuple[str, str], str] = {}
    taken: set[tuple[str, str]] = set()
    readers: dict[tuple[str, str], tuple[str, str]] = {}
    for component, listing in listings.items():
        source = sources[component]
        for subset, files in listing.contents.items():
            for content, url in files.items():
                first, other = readers.setdefault((source, content), (component, url))
                if first != component and not content.startswith("0-"):
                    raise ValueError(same_file(first, other, component, url))
            new = (source, subset) not in taken
            called[component, subset] = subset if new else f"{subset}~{digest(list(files))[:8]}"
            taken.add((source, subset))
    return called


def same_file(first: str, url: str, second: str, other: str) -> str:
    """What is said where two components read one file."""
    which = url if url == other else f"{url}, and {other} of the same content"
    return (
        f"components {first} and {second} read the same samples ({which}). A file belongs to one "
        "component: name other subsets or files in one of them, or leave it out."
    )
