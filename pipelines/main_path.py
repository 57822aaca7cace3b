"""The main path: a mixture's name in, a finished mixture out.

| step    | what is true afterwards                                                |
|---------|------------------------------------------------------------------------|
| survey  | the parts of every component and what determines each; nothing is read |
| read    | ingest, judge, encode of as many parts as cover the budget, of         |
|         | those that were not in `work`                                    (Ray) |
| index   | one line per sample read, with its verdict and counts; near            |
|         | duplicates are compared by tasks                                 (Ray) |
| pick    | how often each sample is used; its copies are dealt to shards          |
| run     | pack: the shards are written                                     (Ray) |
| publish | index, card and, last, `recipe.json`, which marks the mixture finished |
"""

import fcntl
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING, Any

import filters
from mixtures import pick as picking
from mixtures.config import Mixture, hash_lists
from mixtures.mixture_file import to_yaml
from mixtures.optional import LeftOut
from mixtures.pick import INDEX
from pipelines import recipe
from pipelines.alike import alike
from pipelines.annotation_counts import annotation_counts, model_counts
from pipelines.clean import keep_referenced, needed
from pipelines.contamination import contamination
from pipelines.engine import ownership, private, tables
from pipelines.engine.runner import ray_connection, run
from pipelines.engine.tasks import File, Needs, Task
from pipelines.engine.timings import Report, timings
from pipelines.enough import read_enough, reading_of
from pipelines.fact_counts import fact_counts
from pipelines.index import Index
from pipelines.near import compare_by_tasks
from pipelines.preconditions import require_all, require_fields
from pipelines.readiness import ready
from pipelines.report import card, digests
from pipelines.report.finished import finished_of, lines_of
from pipelines.report.leaks import matched_views
from pipelines.report.page import report
from pipelines.report.row_facts import facts_in
from pipelines.report.stats import stats as stats_of
from pipelines.report.texts import texts
from pipelines.shard_tasks import (
    INDEX_ROWS,
    facts_files,
    index_tables,
    pack_tasks,
    picks_folder,
)
from pipelines.sources import SOURCES
from pipelines.stages import COST, REVISE, stage_of
from pipelines.survey import Piece, Place, Survey, survey
from pipelines.unpublished import pick_or_keep
from tokenization.schema import Encoding
from tokenization.terminal import log, sentence
from tokenization.vocab import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MAY_HOLD_VIDEOS = ("video", "json", "tar")
VIDEO = Needs(memory=2 << 30, max_calls=8)
"""Of parts in these layouts: a decoder's peak (2.1 GB measured), and memory given back often."""


def finished_recipe(place: Place) -> dict[str, Any] | None:
    """The recipe of the mixture that stands finished at `output`, or None."""
    return ownership.recipe_of(place.output)


def stats_of_finished(place: Place, fingerprint: str) -> dict[str, Any]:
    """The stats of the mixture that stands finished; says that nothing is to be done."""
    log(f"{place.output} is finished (recipe {fingerprint}); nothing to do.")
    return dict(tables.read_json(tables.join(place.output, "stats.json")))


def refuse_drift(found: dict[str, Any], now: dict[str, Any], place: Place) -> None:
    """Raises ValueError where another recipe's mixture stands at `output`, naming what changed."""
    keys = ("mixture", "inputs", "versions")
    changed = recipe.drift({k: found.get(k) for k in keys}, {k: now[k] for k in keys})
    shown = "\n  ".join(changed[:8]) + (f"\n  and {len(changed) - 8} more" if changed[8:] else "")
    raise ValueError(
        f"{place.output} holds mixture '{found['name']}' made by another recipe "
        f"({found['fingerprint']}, now {now['fingerprint']}):\n  {shown}\n"
        "way out: say overwrite=true to replace it, or name=ANOTHER (or output=DIR) to keep both."
    )


@contextmanager
def folder_lock(folder: str) -> Iterator[None]:
    """Only this build writes in `folder` (a local one: an object store has no locks)."""
    if tables.is_remote(folder):
        yield
        return
    path = Path(folder.removeprefix("file://"))
    path.mkdir(parents=True, exist_ok=True)
    with (path / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log(f"Another build is writing {folder}; waiting for it to end.")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build(mixture: Mixture, place: Place) -> dict[str, Any]:
    """The finished mixture stands at `place.output`; returns its stats.

    Raises:
        ValueError: a mistake in the mixture, a shortage, or another recipe's mixture at `output`.
    """
    begun = time.monotonic()
    can = ready(mixture, place)
    mixture = can.mixture
    for left in can.left_out:
        log(left.sentence)
    if unmade := hash_lists(mixture)[1]:
        sets = ", ".join(sorted({path.split("/")[1] for path in unmade}))
        log(
            f"{len(unmade)} benchmarks of {sets} have no hash list here and will not be checked: "
            f"python -m pipelines hashes {sets} makes them.",
        )
    todo = survey(mixture, place, left_out=can.left_out)
    private.remember(mixture)
    if (done := finished_recipe(place)) and done["fingerprint"] == todo.fingerprint:
        return stats_of_finished(place, todo.fingerprint)
    if done and not place.overwrite:
        refuse_drift(done, todo.recipe, place)
    require_all(mixture, place)
    require_fields(todo, mixture)
    for path, found_sound in can.probed.items():
        tables.write_json(path, found_sound)
    with folder_lock(place.output):
        found = finished_recipe(place)
        if found is not None:
            if found["fingerprint"] == todo.fingerprint:
                return stats_of_finished(place, todo.fingerprint)
            if not place.overwrite:
                refuse_drift(found, todo.recipe, place)
        ownership.claim_work(place.work)
        with (
            needed(place.work, output=place.output, fingerprint=todo.fingerprint, files=used(todo)),
            ray_connection(place.ray, workers=place.workers) as slots,
        ):
            return healing(lambda: made(todo, mixture, place, slots=slots, begun=begun), place)


def made(
    todo: Survey, mixture: Mixture, place: Place, *, slots: int, begun: float
) -> dict[str, Any]:
    """The finished mixture stands at `place.output`; returns its stats. What is there is kept."""
    reports: list[Report] = []
    searching = partial(compare_by_tasks, work=place.work, slots=slots, reports=reports)

    def read(pieces: Sequence[Piece], *, measuring: bool) -> None:
        reports.extend(run(tasks_of(pieces, measuring=measuring), slots=slots))

    with scratch(place) as folder:
        todo, index = read_enough(
            todo, mixture, place, read=read, folder=f"{folder}/index", searching=searching
        )
        picked = pick_or_keep(index, todo, mixture, place)
        dealt = picking.deal_samples(index.samples, picked.copies, mixture)
        ownership.clear(place.output, todo.fingerprint)
        tasks = pack_tasks(dealt, index, todo, mixture, place)
        reports += run(tasks, slots=slots)
        require_same_recipe(place, todo.fingerprint)
        seconds = time.monotonic() - begun
        took = timings(reports, seconds=seconds, rules=rule_costs(todo.pieces))
        found = write_index(index, picked, dealt, todo, mixture, place)
    tables.remove(picks_folder(todo, place))
    return publish(found, todo, mixture, place, took=took)


@contextmanager
def scratch(place: Place) -> Iterator[str]:
    """A folder of this build alone: in `work`, or in TMPDIR where `work` is on an object store."""
    work = place.work.removeprefix("file://").removeprefix("local://")
    inside = Path(gettempdir() if tables.is_remote(place.work) else work)
    inside.mkdir(parents=True, exist_ok=True)
    remove_abandoned(inside)
    made = TemporaryDirectory(
        prefix=".driver.", suffix=".tmp", dir=inside, ignore_cleanup_errors=True
    )
    with made as folder, Path(folder, "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def remove_abandoned(work: Path) -> None:
    """The scratch folders of builds that were killed are gone: nobody holds their locks. What is
    another user's, or on a disk that knows no locks, stays.
    """
    for lock in work.glob(".driver.*.tmp/lock"):
        with suppress(OSError):
            with lock.open("r+b") as file:  # NFS locks only what may be written
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent)


def healing(build: Callable[[], dict[str, Any]], place: Place) -> dict[str, Any]:
    """What `build` returns; a file of ours that is damaged is named, removed and made again."""
    ours = tuple(tables.join(folder, "") for folder in (place.work, f"{place.output}/shards"))
    healed: set[str] = set()
    while True:
        try:
            return build()
        except tables.DamagedError as error:
            if not error.path.startswith(ours) or error.path in healed:
                raise
            healed.add(error.path)
            log(f"{sentence(str(error))} It is removed and made again.")
            tables.remove(error.path)


def used(todo: Survey) -> list[str]:
    """The files of `work` that a build makes or reads."""
    each = [(p.samples, p.verdicts, p.tokens, p.revised) for p in todo.pieces]
    return [path for paths in each for path in paths if path]


def tasks_of(pieces: Sequence[Piece], *, measuring: bool = True) -> list[Task]:
    """Ingest, judge and encode of every part; equal files of two components are made once.
    `measuring`: the cost of each component's rules as well.

    Components run side by side and end at about the same time: their parts are interleaved.
    """
    tasks: dict[str, Task] = {}
    costed = {costs_file(p) for p in measured_pieces(pieces)} if measuring else set()
    for p in interleave_components(pieces):
        part = p.part.name
        samples = File(p.samples)
        facts = {} if p.facts is None else {"facts": p.facts}
        revision = {"revision": File(p.revised)} if p.revised else {}
        if p.revised:
            tasks.setdefault(p.revised, revising(p))
        judging = Needs(num_gpus=max((s.get("num_gpus", 0) for _, s in p.rules), default=0))
        for task in (
            Task(
                stage=stage_of("ingest", p.part, p.rules),
                part=part,
                settings={"part": p.part},
                out=p.samples,
                needs=VIDEO if SOURCES[p.part.source].layout in MAY_HOLD_VIDEOS else None,
            ),
            Task(
                stage=stage_of("judge", p.part, p.rules, p.facts),
                part=part,
                settings={"samples": samples, "rules": p.rules, "weight_by": p.weight_by}
                | facts
                | revision,
                out=p.verdicts,
                after=p.texts,
                needs=judging,
            ),
            Task(
                stage=stage_of("encode", p.part, p.rules),
                part=part,
                settings={
                    "samples": samples,
                    "encoding": p.encoding,
                    "rewriting": list(filters.rewriting(dict(p.rules)).items()),
                    "pairs": p.part.about.pairs,
                    **revision,
                },
                out=p.tokens,
                after=p.texts,
            ),
            Task(
                stage=COST,
                part=part,
                settings={"samples": p.samples, "rules": p.rules, **facts},
                out=costs_file(p),
                after=(p.samples,),
                needs=judging,
            ),
        ):
            if task.stage is not COST or task.out in costed:
                tasks.setdefault(task.out, task)
    return list(tasks.values())


def revising(piece: Piece) -> Task:
    """What models wrote for the samples of a part is put beside them."""
    settings = {"samples": piece.samples, "revisions": piece.revisions}
    after = (piece.samples,)
    part = piece.part.name
    return Task(stage=REVISE, part=part, settings=settings, out=piece.revised, after=after)


def interleave_components(pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces in the order to run them: each component as far on as the others, and of those
    equally far the largest part first.
    """
    of = Counter(p.component for p in pieces)
    seen: Counter[str] = Counter()
    places = []
    for p in pieces:
        places.append((seen[p.component] / of[p.component], -(p.part.num_bytes or 0)))
        seen[p.component] += 1
    return [pieces[i] for i in sorted(range(len(pieces)), key=places.__getitem__)]


def measured_pieces(pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces on which the cost of rules is measured: the first of each component."""
    return list({p.component: p for p in reversed(pieces) if p.rules}.values())[::-1]


def costs_file(piece: Piece) -> str:
    """The file of COSTS, beside the verdicts of the same rules."""
    return tables.join(piece.verdicts.rpartition("/")[0], "costs.arrow")


def rule_costs(pieces: Sequence[Piece]) -> dict[str, dict[str, float]]:
    """Component -> rule -> CPU seconds per sample, as measured when its verdicts were made."""
    found = {p.component: tables.read(costs_file(p)).to_pydict() for p in measured_pieces(pieces)}
    return {
        component: dict(zip(cost["rule"], cost["seconds"], strict=True))
        for component, cost in found.items()
    }


def require_same_recipe(place: Place, fingerprint: str) -> None:
    """Raises ValueError where a build of another recipe has taken `output` over (on a store
    without locks): nothing of this one is published into it.
    """
    now = ownership.mark_of(place.output) or finished_recipe(place)
    if now is None or now.get("fingerprint") != fingerprint:
        raise ValueError(
            f"{place.output}: a build of another recipe ({now and now.get('fingerprint')}) writes "
            "here at the same time. Give each an output= of its own, and run both again."
        )


def write_index(
    index: Index,
    picked: picking.Picked,
    dealt: picking.Dealt,
    todo: Survey,
    mixture: Mixture,
    place: Place,
) -> dict[str, Any]:
    """The index is written; returns the stats."""
    path = tables.join(place.output, "index.arrow")
    written = index_tables(index, picked, dealt, mixture)
    tables.write_pieces(written, INDEX, path, rows_per_batch=INDEX_ROWS)
    shards = (facts_in(path) for path in facts_files(todo, place))
    found = stats_of(lines_of(path), shards, todo.recipe, new=index.samples.new)
    found["notes"] = [LeftOut(**left).sentence for left in todo.recipe["left_out"]]
    found["notes"] += picking.shortage_notes(picked.budgets, mixture)
    found["reading"] = reading_of(todo, index.live_counts(picked.reason), mixture)
    found["contamination"] = contamination(todo.pieces, mixture)
    found["alike"] = alike(index.samples, picked.copies, todo.pieces, mixture)
    found |= annotation_counts(todo.pieces) | fact_counts(todo.pieces)
    found |= model_counts(todo.pieces, todo.recipe)
    found["unread"] = todo.unread
    return found


def publish(
    found: dict[str, Any], todo: Survey, mixture: Mixture, place: Place, *, took: dict[str, Any]
) -> dict[str, Any]:
    """Everything beside shards and index is written, `recipe.json` last; returns the stats, found.

    `took` (see `timings`) stands in stats.json alone, so that all other files are determined.
    """
    out = partial(tables.join, place.output)
    tokenizer = save_tokenizer(mixture.encoding, place)
    if told := texts(finished_of(place.output, recipe=todo.recipe, stats=found)):
        found["texts"] = told
    tables.write_json(out("stats.json"), {**found, "timings": took})
    tables.write_text(out("mixture.yaml"), to_yaml(private.hidden(mixture)))
    made = finished_of(place.output, recipe=todo.recipe, stats=found)
    matched = matched_views(made, work=place.work)
    text = card.card(found, todo.recipe, matched=matched, report=place.report)
    tables.write_text(out("README.md"), text)
    names = ["stats.json", "mixture.yaml", "README.md", "index.arrow", *tokenizer]
    if place.report:
        tables.write_text(out("report.html"), report(made, matched=matched))
        names.insert(3, "report.html")
    else:
        tables.remove(out("report.html"))  # of the mixture that was here before
    files = digests.digests(place.output, names) | shard_digests(todo, place)
    tables.write_json(out("recipe.json"), digests.sealed(todo.recipe, files))
    tables.remove(out(ownership.MARK))
    files_used = used(todo) + facts_files(todo, place)
    keep_referenced(place.work, output=place.output, fingerprint=todo.fingerprint, files=files_used)
    return found


def shard_digests(todo: Survey, place: Place) -> dict[str, Any]:
    """Bytes and SHA-256 of every shard, as its facts say."""
    found = {}
    for path in facts_files(todo, place):
        said = tables.read(path, columns=["bytes", "sha256"]).slice(0, 1).to_pylist()
        name = f"shards/{path.rpartition('/')[2]}"
        found[name] = said[0] if said else digests.digest_of(place.output, name)
    return found


def save_tokenizer(encoding: Encoding, place: Place) -> list[str]:
    """`DIR/tokenizer/` holds the tokenizer as `transformers` saves it, no path of this machine in
    it; returns the files.
    """
    saved = saved_tokenizer(load_tokenizer(encoding.tokenizer))
    for name, text in saved.items():
        if name.endswith("tokenizer_config.json"):
            settings = json.loads(text)
            if (shown := private.hidden(settings)) != settings:
                text = json.dumps(shown, indent=2, ensure_ascii=False) + "\n"
        tables.write_text(tables.join(place.output, name), text)
    return list(saved)


@lru_cache(maxsize=2)
def saved_tokenizer(tokenizer: "PreTrainedTokenizerFast") -> dict[str, str]:
    """The files that `transformers` saves of the tokenizer, `tokenizer/NAME` -> text; like the
    tokenizer itself, made once a process.
    """
    with TemporaryDirectory() as folder:
        files = map(Path, tokenizer.save_pretrained(folder))
        return {f"tokenizer/{path.name}": path.read_text() for path in files if path.is_file()}
