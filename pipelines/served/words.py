"""The words of `judge` as arguments: which is of the endpoint, the request or the budget."""

from dataclasses import fields
from typing import Any

from pipelines.arguments import expanded, parse_bool, parse_folder_and_settings, parse_number
from pipelines.served.endpoint import Endpoint, endpoint_of
from pipelines.served.judge import Judged, Options, judge
from pipelines.served.prompts import load_prompt
from pipelines.served.questions import Settings

PLACES = ("component", "work", "answers", "output")
LEAST = {"concurrency": 1, "max_edge": 16, "max_images": 1, "image_tokens": 1, "timeout": 0.001}
"""What a number must be at least; 0 where it is not named."""


def judged(words: list[str]) -> Judged:
    """What `judge DIR prompt=... endpoint=... model=...` comes to; raises ValueError."""
    groups = [
        {f.name: f.type for f in fields(kind) if f.name not in ("url", "model", "api_key")}
        for kind in (Endpoint, Settings, Options)
    ]
    known = {"prompt", "endpoint", "model", "api_key", "plan", *PLACES}
    folder, given = parse_folder_and_settings(words, known.union(*groups))
    for key, why in (
        ("prompt", "prompt=finevision, or a file of your own (docs/judges.md)"),
        ("endpoint", "the address of a server, endpoint=http://localhost:8000/v1"),
        ("model", "the name under which it serves the model"),
    ):
        if not given.get(key):
            raise ValueError(f"{key}= is missing: {why}.")
    of_endpoint, of_request, of_budget = (
        {key: parsed(key, given[key], kind) for key, kind in group.items() if key in given}
        for group in groups
    )
    endpoint = endpoint_of(
        given["endpoint"], model=given["model"], api_key=given.get("api_key", ""), **of_endpoint
    )
    places = {key: expanded(given[key]) for key in PLACES if key in given}
    return judge(
        folder,
        prompt=load_prompt(given["prompt"]),
        endpoint=endpoint,
        settings=Settings(**of_request),
        options=Options(**of_budget),
        plan=parse_bool(given.get("plan", "false"), "plan"),
        **places,
    )


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
