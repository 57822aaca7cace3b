"""A fingerprint changes with all that determines a result, and with nothing else."""

import dataclasses
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.recipe import drift, fingerprint, identity, to_json
from tokenization.schema import Encoding


@dataclasses.dataclass(frozen=True)
class Setting:
    side: int
    names: tuple[str, ...] = ("a",)


def test_a_dataclass_is_the_dict_of_its_fields():
    assert to_json({"x": Setting(3)}) == {"x": {"side": 3, "names": ["a"]}}
    assert fingerprint(Setting(3)) == fingerprint({"side": 3, "names": ["a"]})


def test_the_order_of_rules_counts_and_values_too():
    assert fingerprint({"a": 1, "b": 2}) != fingerprint({"b": 2, "a": 1})
    assert fingerprint(Setting(3)) != fingerprint(Setting(4))
    assert len(fingerprint(1)) == 16


@pytest.mark.parametrize("value", [Path("x"), {1, 2}, float("nan"), len, b"x", {1.5: 2}, object()])
def test_a_value_without_stable_identity_is_refused(value):
    with pytest.raises(TypeError, match="value"):
        fingerprint({"key": value} if not isinstance(value, dict) else value)


def test_drift_names_the_field_and_both_values():
    old = {"mixture": {"components": {"video": {"ratio": 0.2, "fps": 1}}}}
    new = {"mixture": {"components": {"video": {"ratio": 0.3}, "text": {"ratio": 0.1}}}}
    assert drift(old, new) == [
        "mixture.components.video.ratio: was 0.2, now 0.3",
        "mixture.components.video.fps: was 1, now absent",
        'mixture.components.text: new, now {"ratio": 0.1}',
    ]
    assert drift(old, old) == []


def test_drift_sees_another_order():
    assert drift({"a": 1, "b": 2}, {"b": 2, "a": 1}) == ["the recipe: another order of keys (b, a)"]


def test_where_rules_run_is_no_identity():
    def content(**filters: object) -> dict:
        components = {"a": {"filters": filters, "subsets": [{"x": 1}]}}
        mixture = {"name": "m", "filters": filters, "components": components}
        return {"mixture": mixture, "inputs": {}, "versions": {}}

    here, there = ({"unsafe_image": settings} for settings in ({}, {"num_gpus": 1}))
    assert identity(content(**here)) == identity(content(**there))
    other = {"unsafe_image": {"max_score": 0.5}}
    assert identity(content(**here)) != identity(content(**other))


def test_a_setting_that_came_later_is_no_identity_until_it_changes_something() -> None:
    """Mixtures finished before the setting existed stay what they are."""
    encoding = Encoding()
    assert "plain_prompts" not in to_json(encoding)
    assert to_json(replace(encoding, plain_prompts=0.5))["plain_prompts"] == 0.5
    assert fingerprint(encoding) != fingerprint(replace(encoding, plain_prompts=0.5))


def test_where_hash_lists_and_models_lie_is_no_identity():
    def at(place: str) -> dict:
        rules = {
            "high_perplexity": {"model": f"{place}m.onnx", "max_perplexity": 9},
            "refusal": None,
        }
        own = {"filters": rules, "data": f"{place}rows", "media": None}
        mixture = {"benchmarks": ["smolvlm", f"{place}mine.parquet"], "filters": rules,
                   "components": {"x": own}, "encoding": {"tokenizer": "builtin"}}  # fmt: skip
        return identity({"mixture": mixture, "inputs": {}, "versions": {}})

    assert at("") == at("/somewhere/else/")
    assert at("")["mixture"]["benchmarks"] == ["smolvlm", None]
    assert at("")["mixture"]["filters"]["high_perplexity"]["max_perplexity"] == 9
