"""croissant.json: the dataset in machine-readable terms, each source with its licence.

The vocabulary is Croissant 1.0, https://docs.mlcommons.org/croissant/docs/croissant-spec.html, laid
out as the hub lays out its own: a repository, a set of files for each split, a field for each
column. `isBasedOn` names every source with licence, terms and citation.
"""

from collections.abc import Mapping
from typing import Any

from pipelines.report.card import licensed

CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The context of the specification, as its validator asks for it."""

COLUMNS = {
    "input_ids": ("sc:Integer", "Token ids of several samples end to end, not padded."),
    "loss_mask": ("sc:Boolean", "True where the token is learned; as long as input_ids."),
    "seq_lengths": ("sc:Integer", "Tokens per sample; positions restart at each."),
    "images": ("sc:ImageObject", "Encoded images in order of appearance."),
    "grids": ("sc:Text", "Per image, rows and columns of crops; (0, 0): the global view alone."),
    "sample_ids": ("sc:Text", "Per sample, the row of the repository it came from."),
}
REJECTED = ("sc:Text", "Per sample, the answer that its last one was preferred to, or null.")
"""Of the column `rejected`, where a source is of pairs."""
ENCODINGS = {"arrow": "application/vnd.apache.arrow.file", "parquet": "application/x-parquet"}


def croissant(
    stats: Mapping[str, Any], recipe: Mapping[str, Any], *, repo: str, url: str, format: str
) -> dict[str, Any]:
    """The dataset's metadata as JSON-LD; `url` is its page, `repo` its ORG/NAME."""
    # Longer than a screen: one literal, in the order of the standard.
    splits = [split for split in ("train", "val") if stats["packing"][split]["rows"]]
    pairs = any(source.get("pairs") for source in recipe["sources"].values())
    columns = COLUMNS | {"rejected": REJECTED} if pairs else COLUMNS
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": repo.rsplit("/", 1)[-1],
        "description": stats["description"] or f"The training mixture {stats['name']}.",
        "url": url,
        "version": "1.0.0",
        "identifier": stats["fingerprint"],
        "license": [link_of(licence) for licence in licences(stats)],
        "isBasedOn": [based_on(name, source) for name, source in stats["sources"].items()],
        "keywords": ["smolvlm", "vision-language", "packed"],
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": "repo",
                "name": "repo",
                "description": "The repository at the hub.",
                "contentUrl": url,
                "encodingFormat": "git+https",
                "sha256": "https://github.com/mlcommons/croissant/issues/80",
            },
            *(
                {
                    "@type": "cr:FileSet",
                    "@id": f"{split}-shards",
                    "name": f"{split}-shards",
                    "description": f"The {split} split: {stats['packing'][split]['rows']:,} rows.",
                    "containedIn": {"@id": "repo"},
                    "encodingFormat": ENCODINGS[format],
                    "includes": f"shards/{split}-*.{format}",
                }
                for split in splits
            ),
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": split,
                "name": split,
                "description": f"Packed rows of the {split} split.",
                "field": [
                    {
                        "@type": "cr:Field",
                        "@id": f"{split}/{column}",
                        "name": f"{split}/{column}",
                        "description": description,
                        "dataType": kind,
                        "repeated": True,
                        "source": {
                            "fileSet": {"@id": f"{split}-shards"},
                            "extract": {"column": column},
                        },
                    }
                    for column, (kind, description) in columns.items()
                ],
            }
            for split in splits
        ],
    }


def licences(stats: Mapping[str, Any]) -> list[str]:
    """The licences of the sources and of models' texts, each once."""
    return sorted({source["licence"] or "unknown" for source in licensed(stats).values()})


def link_of(licence: str) -> str:
    """The page of an SPDX licence; other words as they are."""
    if " " in licence or licence in ("unknown", "yours"):
        return licence
    return f"https://spdx.org/licenses/{licence}.html"


def based_on(component: str, source: Mapping[str, Any]) -> dict[str, Any]:
    """A source as schema.org's CreativeWork: repository, licence, terms, citation."""
    about = {
        "@type": "sc:CreativeWork",
        "name": component,
        "license": link_of(source["licence"] or "unknown"),
        "url": f"https://huggingface.co/datasets/{source['hub']}" if source["hub"] else "",
        "version": "" if source["own_files"] else str(source["revision"] or ""),
        "usageInfo": ", ".join(source.get("terms") or ()),
        "conditionsOfAccess": source.get("gating") or "",
        "citation": source.get("citation") or "",
    }
    return {key: value for key, value in about.items() if value}
