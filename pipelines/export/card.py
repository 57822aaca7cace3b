"""README.md of an export: the hub's header, what is in it, and how each trainer loads it."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipelines.report import card as cards
from pipelines.report.finished import Finished


def card(mixture: Finished, made: Mapping[str, Any], *, home: str) -> str:
    """The README of what was made (export.json); a reader loads it by `home`."""
    licences = defaultdict(lambda: "unknown")
    for name, source in mixture.recipe["sources"].items():
        licences[name] = source.get("licence") or "unknown"
    for one in mixture.stats.get("models", ()):
        for name in one["components"] if one["command"] == "rewrite" else ():
            licences[name] += f"; texts of {one['model']}: {one['licence'] or 'unknown'}"
    page = cards.template(Path(__file__).with_name("card.md.jinja"))
    return str(page.render(header=header(mixture, made), made=made, licences=licences, home=home))


def header(mixture: Finished, made: Mapping[str, Any]) -> str:
    """The YAML that tells `datasets` and the viewer which files are which split."""
    sources = cards.licensed(mixture.stats)
    fields: dict[str, Any] = {
        "pretty_name": made["mixture"],
        "license": cards.licences(sources),
        "license_name": cards.other_licences(sources),
        "license_link": "README.md" if cards.other_licences(sources) else "",
        "task_categories": ["image-text-to-text", "video-text-to-text"],
        "tags": ["vision-language", "multimodal", str(made["format"])],
        "configs": configs(made),
    }
    fields = {key: value for key, value in fields.items() if value}
    return str(yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=1000))


def configs(made: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The configurations: conversations first, which is the default one; raw documents apart."""
    has = {(split, line["document"]) for split, lines in made["splits"].items() for line in lines}
    kinds: list[tuple[str, str, tuple[bool, ...]]]
    kinds = [("default", "shards/{}-*.tar", (False, True))]
    if made["format"] == "preferences":
        kinds = [("default", "preferences/{}-*.parquet", (False,))]
    elif made["format"] == "messages":
        kinds = [
            ("default", "messages/{}-*.parquet", (False,)),
            ("documents", "documents/{}-*.parquet", (True,)),
        ]
    found: list[dict[str, Any]] = []
    for name, pattern, of in kinds:
        files = [
            {"split": split, "path": pattern.format(split)}
            for split in made["splits"]
            if any((split, document) in has for document in of)
        ]
        if files:
            found.append({"config_name": name, "data_files": files})
    if found:
        found[0]["default"] = True
    return found
