"""Publishing: a finished mixture as a dataset, a checkpoint as a model, through `huggingface_hub`.

    DIR --staged--> files to publish --upload_folder--> repository, in as few commits as the client
    can (one, or one for every 250 files and more where it uploads by Xet)

Pushing again uploads nothing that is there; a push cut short goes on where it was. What lies in
the repository under `shards/` and is not of this mixture goes in the same commit.
"""

import json
import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from pipelines.engine import private, tables
from pipelines.export import files as export_files
from pipelines.export import folder as exporting
from pipelines.reading.hub import is_offline
from pipelines.reading.hub_requests import connection_errors, retry_delay, waiting_sentence
from pipelines.report import card as cards
from pipelines.report import digests
from pipelines.report.croissant import croissant
from pipelines.report.finished import Finished, open_finished
from pipelines.report.leaks import matched_views
from pipelines.report.page import published
from pipelines.revisions import against_sharing, refuse_outputs
from tokenization.terminal import log

FORMATS = ("arrow", "parquet", *export_files.FORMATS)
"""Of packed shards, for this trainer; and the samples themselves, for others."""
PUBLISHED = ("report.html", "recipe.json", "stats.json", "mixture.yaml")
"""Beside the card, the index, the shards and the tokenizer; what else lies in DIR stays here."""
REWRITTEN = ("README.md", "report.html")
"""What a push writes anew, so that it is another file than the mixture's own."""
EXPORTED = ["messages/*", "documents/*", "preview/*", exporting.MARK]
OURS = ["shards/*", "index.*", "tokenizer/*", "croissant.json", *PUBLISHED, *EXPORTED]
"""What a push replaces: files of these names that are no longer of the mixture are deleted."""
ROWS_PER_GROUP = 100
"""Of a Parquet row group: images are heavy, and the viewer reads whole groups."""
PASSING = (408, 409, 412, 429, 500, 502, 503, 504)
"""Status codes worth another try; 409 and 412: someone else committed in between."""
ATTEMPTS = 6
"""Tries of an upload, 1, 2, 4, 8, 16 s apart. What arrived is not sent again."""


def push(
    folder: str,
    *,
    repo: str,
    private: bool = False,
    revision: str = "main",
    format: str = "arrow",
    content: str = "parts",
    terms: str = "",
    dataset: str = "",
) -> str:
    """The finished mixture or the checkpoint in `folder` is at the hub; returns its URL.

    `terms="accepted"` states that gated terms and bans on redistribution are met; `dataset` is the
    repository of the mixture that a checkpoint was trained on, linked in its card. `format`: packed
    shards as `arrow` or `parquet`, or the samples as `export` writes them (`content` is its).

    Raises:
        ValueError: a bad name or format, or a licence that forbids it.
        FileNotFoundError: neither a mixture nor a checkpoint in `folder`.
    """
    root = Path(folder)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise ValueError(f"repo={repo}: expected ORG/NAME, as in repo=ORG/{root.name}.")
    if (root / "recipe.json").is_file():
        if format not in FORMATS:
            raise ValueError(f"format={format}: expected one of {', '.join(FORMATS)}.")
        exported = format in export_files.FORMATS
        if exported or content != "parts":
            exporting.check_words(format=format, content=content)
        mixture = open_finished(folder)
        exporting.check_pairs(mixture, format=format)
        refuse_terms(mixture, terms=terms)
        url = make_repository(repo, kind="dataset", private=private, revision=revision)
        with (
            staged_export(mixture, repo=repo, format=format, content=content)
            if exported
            else staged_mixture(mixture, repo=repo, format=format)
        ) as files:
            return upload(files, repo=repo, kind="dataset", url=url, revision=revision)
    if (root / "config.json").is_file():
        url = make_repository(repo, kind="model", private=private, revision=revision)
        with staged_checkpoint(root, repo=repo, dataset=dataset) as files:
            return upload(files, repo=repo, kind="model", url=url, revision=revision)
    raise FileNotFoundError(
        f"{folder}: neither a finished mixture (recipe.json) nor a checkpoint (config.json).\n"
        "way out: "
        "build a mixture (python -m pipelines build), or name a checkpoint's folder on this disk."
    )


def refuse_offline() -> None:
    """Raises ValueError where HF_HUB_OFFLINE forbids every request: nothing can be pushed."""
    if is_offline():
        raise ValueError(
            "HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) is set, and a push needs the hub. Unset it, "
            "or push from a machine that may reach the hub."
        )


def refuse_terms(mixture: Finished, *, terms: str) -> None:
    """Raises ValueError where `licenses` of the mixture or a source's terms forbid publishing."""
    if terms not in ("", "accepted"):
        raise ValueError(f"terms={terms}: expected terms=accepted, or nothing.")
    licences = mixture.recipe["mixture"].get("licenses") or {}
    allow, forbid = licences.get("allow") or [], licences.get("forbid") or []
    refused, unstated = [], []
    for component, source in mixture.recipe["sources"].items():
        names = [source.get("licence") or "unknown", *(source.get("terms") or ())]
        if set(names) & set(forbid) or (allow and not set(names) & set(allow)):
            refused.append(f"{component} ({', '.join(names)})")
        if source.get("gating"):
            unstated.append(f"{component} (gated: {source['gating']})")
        if "no-redistribution" in names:
            unstated.append(f"{component} (no-redistribution)")
    models = mixture.recipe.get("models") or []
    refuse_outputs(models, licences, where=mixture.folder)
    unstated += against_sharing(models, mixture.recipe["sources"])
    if refused:
        raise ValueError(
            f"{mixture.folder}: `licenses` of the mixture refuses {'; '.join(refused)}. Set these "
            "components' ratio to 0 and build again, or change `licenses`."
        )
    if unstated and not terms:
        raise ValueError(
            f"{mixture.folder}: terms stand against publishing {'; '.join(unstated)}. If you meet "
            "them (and carry them forward in the repository), say terms=accepted."
        )


@contextmanager
def staging_folder(folder: Path) -> Iterator[Path]:
    """An empty folder for what will be published; it is gone afterwards, also after an error."""
    stage = folder / ".push"
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    try:
        yield stage
    finally:
        shutil.rmtree(stage)


@contextmanager
def staged_mixture(mixture: Finished, *, repo: str, format: str) -> Iterator[Path]:
    """A folder of links to the mixture's files, its card rewritten for `repo` and `format`."""
    from huggingface_hub import constants

    folder = Path(mixture.folder)
    with staging_folder(folder) as stage:
        shown = preview_in(mixture, stage)
        named = matched_views(mixture, work="")
        text = cards.card(
            mixture.stats, mixture.recipe, home=repo, format=format, preview=shown, matched=named,
            report="report.html" in (mixture.recipe.get("files") or ["report.html"]),
        )  # fmt: skip
        (stage / "README.md").write_text(text)
        url = f"{constants.ENDPOINT}/datasets/{repo}"
        about = croissant(mixture.stats, mixture.recipe, repo=repo, url=url, format=format)
        tables.write_json(stage / "croissant.json", about)
        for name in PUBLISHED:
            if (folder / name).is_file():
                hard_link(folder / name, stage / name)
        hide_local(stage / "report.html")
        for path in sorted((folder / "tokenizer").iterdir()):
            hard_link(path, stage / "tokenizer" / path.name)
        shards = [f"shards/{name}" for names in mixture.shards.values() for name in names]
        for name in ["index.arrow", *shards]:
            if format == "parquet":
                to_parquet(folder / name, (stage / name).with_suffix(".parquet"))
            else:
                hard_link(folder / name, stage / name)
        if "files" in mixture.recipe:
            seal(mixture, stage)
        yield stage


def hide_local(page: Path) -> None:
    """The staged page is without what is shown only where the mixture was built."""
    if page.is_file():
        text = published(page.read_text(encoding="utf-8"))
        page.unlink()  # a link to the mixture's own
        page.write_text(text, encoding="utf-8")


def preview_in(mixture: Finished, stage: Path) -> list[str]:
    """The splits of which `stage/preview` shows some samples; says why, where there are none."""
    try:
        return exporting.write_preview(mixture, str(stage))
    except ValueError as error:
        log(f"No preview of samples for the hub's page: {error}", level=logging.WARNING)
        shutil.rmtree(stage / "preview", ignore_errors=True)
        return []


@contextmanager
def staged_export(mixture: Finished, *, repo: str, format: str, content: str) -> Iterator[Path]:
    """A folder with the mixture's samples in another trainer's format."""
    refuse_changed(mixture)
    with staging_folder(Path(mixture.folder)) as stage:
        exporting.write(mixture, str(stage), format=format, content=content, home=repo)
        yield stage


def refuse_changed(mixture: Finished) -> None:
    """Raises ValueError where a file of the mixture is not as it was built."""
    changed = [
        f"{name}: {why}"
        for name, why in digests.differing(mixture.folder, mixture.recipe)
        if name != "README.md"  # the card is written anew
    ]
    if changed and "files" in mixture.recipe:
        raise ValueError(
            f"{mixture.folder} is not as it was built, and nothing was pushed:\n  "
            + "\n  ".join(changed[:8])
        )


def seal(mixture: Finished, stage: Path) -> None:
    """`stage/recipe.json` has the hashes of the files beside it, which are those of the mixture, or
    were just made of them.

    Raises:
        ValueError: a file of the mixture is not as it was built.
    """
    refuse_changed(mixture)
    known = mixture.recipe["files"]
    names = [path.relative_to(stage).as_posix() for path in stage.rglob("*") if path.is_file()]
    files = {
        name: known[name]
        if name in known and name not in REWRITTEN
        else digests.digest_of(str(stage), name)
        for name in sorted(names)
        if name not in ("recipe.json", "croissant.json")
    }
    (stage / "recipe.json").unlink()
    tables.write_json(stage / "recipe.json", digests.sealed(mixture.recipe, files))


def hard_link(path: Path, place: Path) -> None:
    """`place` is another name of the file at `path`."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(path.resolve())


def to_parquet(path: Path, place: Path) -> None:
    """The Parquet file at `place` has the rows of the Arrow file, and its `datasets` features.

    The same rows give the same bytes. Pages are cut by content, so that storage which deduplicates
    keeps what did not change: https://huggingface.co/blog/parquet-cdc
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    place.parent.mkdir(parents=True, exist_ok=True)
    reader = tables.open_file(path)
    with pq.ParquetWriter(
        place,
        reader.schema,
        compression="zstd",
        write_page_index=True,
        use_content_defined_chunking=True,
    ) as writer:
        for batch in tables.batches(path, reader):
            writer.write_table(pa.table(batch), row_group_size=ROWS_PER_GROUP)


@contextmanager
def staged_checkpoint(folder: Path, *, repo: str, dataset: str) -> Iterator[Path]:
    """Links to what `transformers` loads, the run's settings, and a card that names the data."""
    with staging_folder(folder) as stage:
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.name != "README.md":
                hard_link(path, stage / path.name)
        for name in ("config.yaml", "state.json"):
            if (folder / "trainer" / name).is_file():
                settings = yaml.safe_load((folder / "trainer" / name).read_text())  # JSON is YAML
                (stage / "trainer").mkdir(exist_ok=True)
                shown = private.hidden(settings)
                text = (
                    json.dumps(shown, indent=2) + "\n"
                    if name.endswith(".json")
                    else yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)
                )
                (stage / "trainer" / name).write_text(text)
        (stage / "README.md").write_text(model_card(folder, repo=repo, dataset=dataset))
        yield stage


def model_card(folder: Path, *, repo: str, dataset: str) -> str:
    """The checkpoint's card with the repository's name in it and the dataset in header and text."""
    path = folder / "README.md"
    text = path.read_text() if path.is_file() else f"---\n---\n\n# {repo}\n"
    opening = re.match(r"---\n(.*?)---\n", text, re.DOTALL)
    fields = (yaml.safe_load(opening[1]) if opening else None) or {}
    body = text[opening.end() :] if opening else "\n" + text
    config = json.loads((folder / "config.json").read_text())
    fields.setdefault("library_name", "transformers")
    fields.setdefault("pipeline_tag", "image-text-to-text")
    fields["tags"] = sorted({*fields.get("tags", ()), str(config.get("model_type", "smolvlm"))})
    if dataset:
        fields["datasets"] = [dataset]
        body += f"\nThe packed rows it was trained on: [{dataset}](https://huggingface.co/datasets/{dataset}).\n"
    header = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{header}---\n{body.replace('THIS_FOLDER', repo)}"


def make_repository(repo: str, *, kind: str, private: bool, revision: str) -> str:
    """The repository and its branch are there, and this machine's token may write to them; returns
    the repository's URL.

    Raises:
        ValueError: the hub cannot be reached, does not know who is pushing, or does not let them.
    """
    from huggingface_hub import HfApi

    refuse_offline()
    api = HfApi()
    url = str(
        retrying(
            lambda: api.create_repo(repo, repo_type=kind, private=private, exist_ok=True),
            what=f"creating {repo}",
            reached=False,
        )
    )
    if revision != "main":
        retrying(
            lambda: api.create_branch(repo, repo_type=kind, branch=revision, exist_ok=True),
            what=f"creating branch {revision} of {repo}",
        )
    return url


def upload(files: Path, *, repo: str, kind: str, url: str, revision: str) -> str:
    """The repository's branch holds the files in the folder; returns its URL."""
    from huggingface_hub import HfApi

    api = HfApi()
    retrying(
        lambda: api.upload_folder(
            repo_id=repo,
            repo_type=kind,
            folder_path=files,
            revision=revision,
            delete_patterns=OURS if kind == "dataset" else None,
            commit_message=commit_message(files),
        ),
        what=f"uploading to {repo}",
    )
    return url if revision == "main" else f"{url}/tree/{revision}"


def commit_message(files: Path) -> str:
    """The commit's subject: which recipe, or which model, this is."""
    exported = files / exporting.MARK
    if exported.is_file():
        made: Mapping[str, Any] = json.loads(exported.read_text())
        return f"Mixture {made['mixture']}, recipe {made['recipe']}, as {made['format']}"
    recipe = files / "recipe.json"
    if recipe.is_file():
        found: Mapping[str, Any] = json.loads(recipe.read_text())
        return f"Mixture {found['name']}, recipe {found['fingerprint']}"
    return "A checkpoint, as transformers saves it"


def retrying(call: Callable[[], Any], *, what: str, reached: bool = True) -> Any:
    """What `call` returns, tried again after errors of the hub or the network that may pass; where
    the hub was not `reached` before, it is not waited for.

    Raises:
        ValueError: the hub cannot be reached, does not know who is pushing, or does not let them.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError

    passing: tuple[type[Exception], ...] = (HfHubHTTPError, *connection_errors())
    for attempt in range(ATTEMPTS):
        try:
            return call()
        except passing as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status in (401, 403):
                raise ValueError(
                    f"{what}: the hub answered {status}. Set HF_TOKEN to a token that may write "
                    "there, or log in with `hf auth login`."
                ) from error
            first = str(error).strip().splitlines()[:1]
            if status is None and (not reached or attempt == ATTEMPTS - 1):
                raise ValueError(
                    f"{what}: {constants.ENDPOINT} cannot be reached "
                    f"({': '.join([type(error).__name__, *first])}). Push from a machine that can; "
                    "what was uploaded is not sent again."
                ) from error
            if (status is not None and status not in PASSING) or attempt == ATTEMPTS - 1:
                error.add_note(f"{what}: attempt {attempt + 1} of {ATTEMPTS}")
                raise
            pause = max(retry_delay(attempt, error), float(2**attempt))
            told = waiting_sentence(what, error, seconds=pause, attempt=attempt, tries=ATTEMPTS)
            log(told)
            time.sleep(pause)
    raise AssertionError("unreachable")
