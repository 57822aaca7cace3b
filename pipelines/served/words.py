"""The words of `judge` and `rewrite` as arguments: of the engine, the request, the budget."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

from pipelines.arguments import expanded, parse_bool, parse_folder_and_settings, parse_number
from pipelines.report.finished import open_finished
from pipelines.served.counts import Asked
from pipelines.served.endpoint import Endpoint, Unanswered, endpoint_of
from pipelines.served.engines import LOCAL, Engine, model_name, of_endpoint, of_model
from pipelines.served.judge import judge
from pipelines.served.prompts import bundled, load_prompt
from pipelines.served.questions import Settings
from pipelines.served.rewrite import Outputs, rewrite
from pipelines.served.run import Options, Where

OF_SERVER = ("url", "model", "api_key")
"""Of an endpoint, what is named by other words or by itself."""
OF_MODEL = ("engine", "ray", "gpus")
"""Words of a model that is run here."""
OF_URL = ("endpoint", "api_key", "timeout", "retries", "pause", "per_minute")
"""Words of a server, which such a model has not."""
ENGINES = ("endpoint", *LOCAL)
TEXTS = ("read", "mixture")
LEAST = {"concurrency": 1, "max_edge": 16, "max_images": 1, "image_tokens": 1, "timeout": 0.001}
"""What a number must be at least; 0 where it is not named."""


@dataclass(frozen=True, kw_only=True)
class Words:
    """What the command line says, each value of its kind."""

    folder: str
    given: dict[str, str]
    """As they were written."""
    endpoint: dict[str, Any]
    settings: Settings
    options: Options
    where: Where

    @property
    def plan(self) -> bool:
        """Whether nothing is asked."""
        return parse_bool(self.given.get("plan", "false"), "plan")


def judged(words: list[str]) -> Asked:
    """What `judge DIR prompt=... endpoint=... model=...` comes to; raises ValueError."""
    said = read_words(words, rewrites=False)
    prompt = load_prompt(said.given["prompt"])
    with engine_of(said) as engine:
        return judge(
            said.folder, prompt=prompt, engine=engine, settings=said.settings,
            options=said.options, where=said.where, plan=said.plan,
        )  # fmt: skip


def rewritten(words: list[str]) -> Asked:
    """What `rewrite DIR prompt=... endpoint=... model=...` comes to; raises ValueError."""
    said = read_words(words, rewrites=True, more=("language", "licence", "terms", "texts"))
    given = said.given
    prompt = load_prompt(given["prompt"], rewrites=True, language=given.get("language", ""))
    texts = given.get("texts", TEXTS[0])
    if texts not in TEXTS:
        raise ValueError(f"texts={texts}: expected {' or '.join(TEXTS)}.")
    terms = [term.strip() for term in given.get("terms", "").split(",") if term.strip()]
    with engine_of(said) as engine:
        return rewrite(
            said.folder, prompt=prompt, engine=engine, settings=said.settings,
            options=said.options, where=said.where, as_read=texts == "read", plan=said.plan,
            outputs=Outputs(licence=given.get("licence", ""), terms=terms),
        )  # fmt: skip


def read_words(words: list[str], *, rewrites: bool, more: tuple[str, ...] = ()) -> Words:
    """The words, each known and of its kind; raises ValueError."""
    kinds = (Endpoint, Settings, Options)
    groups = [{f.name: f.type for f in fields(k) if f.name not in OF_SERVER} for k in kinds]
    places = [f.name for f in fields(Where)]
    known = {"prompt", "endpoint", "model", "api_key", "plan", *OF_MODEL, *places, *more}
    folder, given = parse_folder_and_settings(words, known.union(*groups))
    engine = given.get("engine", ENGINES[0])
    if engine not in ENGINES:
        raise ValueError(f"engine={engine}: expected {', '.join(ENGINES)}.")
    others = [key for key in (OF_MODEL[1:] if engine not in LOCAL else OF_URL) if key in given]
    if others:
        raise ValueError(f"engine={engine}: {others[0]}= is not one of its words.")
    for key, why in (
        ("prompt", f"one of {', '.join(bundled(rewrites=rewrites))}, or a file of your own"),
        ("endpoint", "the address of a server, endpoint=http://localhost:8000/v1"),
        ("model", "the name under which it serves the model"),
    ):
        if not given.get(key) and not (key == "endpoint" and engine in LOCAL):
            raise ValueError(f"{key}= is missing: {why} (docs/judges.md).")
    of_endpoint, of_request, of_budget = (
        {key: parsed(key, given[key], kind) for key, kind in group.items() if key in given}
        for group in groups
    )
    return Words(
        folder=folder,
        given=given,
        endpoint=of_endpoint,
        settings=Settings(**of_request),
        options=Options(**of_budget),
        where=Where(**{key: expanded(given[key]) for key in places if key in given}),
    )


@contextmanager
def engine_of(said: Words) -> Iterator[Engine]:
    """Whoever is to answer."""
    given = said.given
    kind = given.get("engine", ENGINES[0])
    if kind in LOCAL and said.plan:  # which model it is says its name
        yield Engine(
            kind=kind, model=model_name(given["model"]), where=given["model"],
            ask=lambda *_: (Unanswered(why="a plan"), 0), stop=lambda: None,
        )  # fmt: skip
        return
    if kind in LOCAL:
        open_finished(said.folder)  # where it is none, that is said before the model is loaded
        with of_model(
            given["model"], kind=kind, batch=said.options.concurrency,
            max_images=said.settings.max_images, ray=given.get("ray", ""),
            gpus=parse_number(given.get("gpus", "1"), "gpus"),
        ) as engine:  # fmt: skip
            yield engine
        return
    yield of_endpoint(
        endpoint_of(
            given["endpoint"], model=given["model"], api_key=given.get("api_key", ""),
            **said.endpoint,
        )
    )  # fmt: skip


def parsed(key: str, word: str, kind: Any) -> Any:
    """The setting's value; raises ValueError."""
    if kind in (bool, "bool"):
        return parse_bool(word, key)
    number = parse_number(word.replace("_", ""), key)
    least = LEAST.get(key, 0)
    whole = kind in (int, "int")
    if not least <= number < float("inf") or (whole and number != int(number)):
        raise ValueError(f"{key}={word}: expected a {'whole ' * whole}number, {least:g} or more.")
    return int(number) if whole else number
