"""A finished mixture in Python: its index and rows as tables, its samples as images and text.

| what              | is                                                                        |
|-------------------|---------------------------------------------------------------------------|
| `index`           | polars: one line per sample ever read, with its verdict and its copies    |
| `rows`            | pyarrow: packed rows, memory-mapped                                       |
| `samples`         | one after the other, images decoded                                       |
| `dataset`         | a `datasets.Dataset` of packed rows                                       |
| `check`, `diff`, `show`, `push` | what the commands of these names do                         |
| shown in a notebook | the card's tables and the report's plots                                |
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.engine import tables
from pipelines.report.finished import Finished, open_finished

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa
    from PIL.Image import Image

    from pipelines.report.diff import Diff
    from pipelines.report.row_view import Span

IMAGE = "<image>"
"""Stands in a sample's text for each of its images."""


@dataclass(frozen=True, kw_only=True)
class PackedSample:
    """A sample as it lies in a packed row."""

    id: str
    component: str
    subset: str
    parts: "list[str | Image]"
    """Texts and images as the model reads them, special tokens left out."""
    learned: list[str]
    """The texts that are learned, in order: the answers."""
    num_tokens: int
    num_learned: int

    @property
    def images(self) -> "list[Image]":
        """Its images, in order."""
        return [part for part in self.parts if not isinstance(part, str)]

    @property
    def text(self) -> str:
        """Its texts, with `<image>` in the place of each image."""
        return "".join(part if isinstance(part, str) else IMAGE for part in self.parts).strip()


@dataclass(frozen=True)
class FinishedMixture:
    """The finished mixture in `folder`; opened by `pipelines.open` or returned by a build."""

    finished: Finished
    work: str
    """Where the build kept its samples: rejected ones are in no shard."""

    @property
    def folder(self) -> str:
        """Where it lies."""
        return self.finished.folder

    def __fspath__(self) -> str:
        """Its folder: `trainer.train("tiny", data=mixture)`, `Path(mixture)`."""
        return self.folder

    @property
    def name(self) -> str:
        """Of the mixture."""
        return str(self.stats["name"])

    @property
    def stats(self) -> dict[str, Any]:
        """Every number of the card (stats.json)."""
        return self.finished.stats

    @property
    def recipe(self) -> dict[str, Any]:
        """What determined it (recipe.json)."""
        return self.finished.recipe

    @property
    def card(self) -> str:
        """README.md."""
        return tables.read_bytes(tables.join(self.folder, "README.md")).decode()

    @property
    def index(self) -> "pl.DataFrame":
        """One line per sample ever read: docs/columns.md."""
        return self.finished.index

    @property
    def components(self) -> "pl.DataFrame":
        """A line per component: asked, got in each measure, samples, epochs, read, kept."""
        import polars as pl

        lines = []
        for name, part in self.stats["components"].items():
            got = {f"got_{measure}": share for measure, share in part["got"].items()}
            rest = {key: part[key] for key in ("samples", "epochs", "read", "kept")}
            lines.append({"component": name, "asked": part["asked"], **got, **rest})
        return pl.DataFrame(lines)

    def rows(self, split: str = "train", *, columns: Sequence[str] = ()) -> "pa.Table":
        """The packed rows of a split in order, memory-mapped where they lie on this machine."""
        import pyarrow as pa

        shards = self._shards(split)
        return pa.concat_tables(
            tables.read(self.finished.path(shard), columns=columns) for shard in shards
        )

    def dataset(self, split: str = "train") -> Any:
        """The packed rows of a split as a `datasets.Dataset`."""
        import datasets
        from datasets.table import InMemoryTable

        return datasets.Dataset(InMemoryTable(self.rows(split)))

    def samples(self, split: str = "train", *, component: str = "") -> Iterator[PackedSample]:
        """The samples of a split as they lie in its rows, images decoded; `component`: of it alone.

        A sample that is used twice comes twice; one that is cut lies in several pieces.
        """
        from pipelines.report.row_view import sample_views
        from pipelines.report.show import known_component

        if component:
            known_component(self.finished, component)
        tokens_per_crop = self.recipe["mixture"]["encoding"]["tokens_per_crop"]
        for shard in self._shards(split):
            names = self._names(split, shard)
            path = self.finished.path(shard)
            for batch in tables.batches(path, tables.open_file(path)):
                for row in batch.to_pylist():
                    found = sample_views(
                        row, self.finished.tokenizer, tokens_per_crop=tokens_per_crop
                    )
                    for view in found:
                        name, subset = names[view.id]
                        if component in ("", name):
                            yield PackedSample(
                                id=view.id, component=name, subset=subset,
                                parts=_parts(view.spans, row["images"]),
                                learned=_learned(view.spans),
                                num_tokens=view.num_tokens, num_learned=view.num_learned,
                            )  # fmt: skip

    def _shards(self, split: str) -> list[str]:
        shards = self.finished.shards.get(split, [])
        if not shards:
            there = ", ".join(name for name, found in self.finished.shards.items() if found)
            raise ValueError(f"{self.folder}: no rows in split '{split}'. Expected: {there}.")
        return shards

    def _names(self, split: str, shard: str) -> dict[str, tuple[str, str]]:
        """Component and subset of each sample in the shard."""
        import polars as pl

        number = int(shard.removeprefix(f"{split}-").removesuffix(".arrow"))
        here = self.index.filter(
            (pl.col("split") == split) & pl.col("shard").list.contains(number)
        ).select(pl.col("id", "component", "subset").cast(pl.String))
        return {sample: (name, subset) for sample, name, subset in here.iter_rows()}

    def check(self, *, rows: int = 64) -> list[str]:
        """Every broken contract as a sentence; none: it is whole. `rows` of each shard; 0: all."""
        from pipelines.check import folder_faults

        return list(folder_faults(self.folder, rows=rows))

    def diff(self, other: "FinishedMixture | str") -> "Diff":
        """What differs between this and another one."""
        from pipelines.report.diff import diff

        return diff(self.folder, other.folder if isinstance(other, FinishedMixture) else other)

    def show(self, *, row: int = 0, split: str = "train", id: str = "", rule: str = "",
             component: str = "") -> str:  # fmt: skip
        """A packed row as the model sees it, the story of a sample, what a rule rejected, or
        samples of a component, as text.
        """
        from pipelines.report.show import show

        return show(self.folder, row=row, split=split, id=id, rule=rule, component=component,
                    work=self.work, color=False)  # fmt: skip

    def push(self, repo: str, *, private: bool = False, terms: str = "") -> str:
        """It is at the hub, with its card; returns the URL."""
        from pipelines.push import push

        return push(self.folder, repo=repo, private=private, terms=terms)

    def data(self) -> dict[str, Any]:
        """The numbers of the table that ends a build."""
        from pipelines.report.card import table_data

        return {"output": self.folder, **table_data(self.stats)}

    def __str__(self) -> str:
        """The table that ends a build."""
        from pipelines.report.card import terminal_table

        drawn = "report.html" in self.finished.recipe["files"]
        return terminal_table(self.stats, output=self.folder, report=drawn)

    def __repr__(self) -> str:
        """One line."""
        return f"<mixture {self.name} in {self.folder}: {self.stats['train']['samples']:,} samples>"

    def _repr_html_(self) -> str:
        from pipelines.report.notebook import html

        return html(self.finished)


def _parts(spans: "Sequence[Span]", images: Sequence[dict[str, Any]]) -> "list[str | Image]":
    """The spans' texts and images in order; neighbouring texts are one."""
    from tokenization.images import open_image

    parts: list[str | Image] = []
    for span in spans:
        if span.kind == "image":
            parts.append(open_image(images[span.image]["bytes"]))
        elif span.kind == "text" and parts and isinstance(parts[-1], str):
            parts[-1] += span.text
        elif span.kind == "text":
            parts.append(span.text)
    return parts


def _learned(spans: "Sequence[Span]") -> list[str]:
    """The texts of neighbouring learned spans, joined."""
    found: list[str] = []
    before = False
    for span in spans:
        if span.learned and span.kind == "text":
            found = [*found[:-1], found[-1] + span.text] if before else [*found, span.text]
        before = span.learned and span.kind == "text"
    return [text.strip() for text in found]


def open_mixture(folder: str, *, work: str) -> FinishedMixture:
    """The finished mixture in the folder (or under the URL).

    Raises:
        FileNotFoundError: there is none.
    """
    return FinishedMixture(open_finished(folder), work)
