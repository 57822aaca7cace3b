import dataclasses

import polars as pl

from mixtures.diff import diff, flat
from mixtures.pick import pick
from tests.mixtures.synthetic import index_of, mixture_of

INDEX_2 = index_of({("text", "a"): 400, ("image", "x"): 300}, modality={"text": "text"})


def made(text: float, **settings) -> tuple[dict, pl.DataFrame]:
    mixture = mixture_of({"text": text, "image": 1 - text}, tokens=60_000, **settings)
    recipe = {"mixture": dataclasses.asdict(mixture), "packages": {"polars": "1"}, "sources": {}}
    return recipe, pick(INDEX_2, mixture)


def test_a_mixture_and_itself_differ_in_nothing():
    found = diff(*made(0.3), *made(0.3))
    assert found.settings.is_empty()
    assert found.rules.is_empty()
    assert found.moved.is_empty()
    assert found.samples["only_a"].sum() == found.samples["only_b"].sum() == 0
    assert found.components["tokens_a"].equals(found.components["tokens_b"], check_names=False)


def test_what_changed_is_named_with_both_values():
    found = diff(*made(0.3), *made(0.6, seed=18))
    changed = dict(found.settings.select("key", pl.concat_list("a", "b")).iter_rows())
    assert changed == {
        "mixture.seed": ["17", "18"],
        "mixture.components.text.ratio": ["0.3", "0.6"],
        "mixture.components.image.ratio": ["0.7", "0.4"],
    }


def test_shares_of_both_sides_stand_beside_what_was_asked():
    (_, index_a), (_, index_b) = a, b = made(0.3), made(0.6)
    text = diff(*a, *b).components.filter(component="text").row(0, named=True)
    assert (text["asked_a"], text["asked_b"]) == (0.3, 0.6)
    for side, index in (("a", index_a), ("b", index_b)):
        train = index.filter(split="train")
        used = train.select(pl.col("copies") * pl.col("num_tokens")).to_series()
        expected = used.filter(train["component"] == "text").sum() / used.sum()
        assert abs(text[f"tokens_{side}"] - expected) < 1e-12
        assert text[f"samples_{side}"] > text[f"tokens_{side}"]  # short samples


def test_samples_of_one_and_not_the_other_add_up():
    (_, index_a), (_, index_b) = a, b = made(0.3), made(0.6)
    found = diff(*a, *b)
    used_a = set(index_a.filter(pl.col("copies") > 0)["id"])
    used_b = set(index_b.filter(pl.col("copies") > 0)["id"])
    assert found.samples["both"].sum() == len(used_a & used_b)
    assert found.samples["only_a"].sum() == len(used_a - used_b)
    assert found.samples["only_b"].sum() == len(used_b - used_a)
    assert set(found.moved["id"]) == used_a ^ used_b
    assert set(found.moved.filter(a="used")["b"]) == {"unused"}


def test_rules_and_the_reason_of_a_move_are_shown():
    a, b = made(0.3), made(0.3, subsets={"image": {"x": {"keep": 0.1}}})
    found = diff(*a, *b)
    assert found.rules.rows() == [("image", "keep", 0, 270)]
    assert "keep" in set(found.moved["b"])


def test_a_component_of_one_side_only_has_zeros_on_the_other():
    recipe, index = made(0.3)
    other = mixture_of({"image": 1.0}, tokens=60_000)
    alone = {"mixture": dataclasses.asdict(other)}
    picked = pick(INDEX_2.filter(component="image"), other)
    found = diff(recipe, index, alone, picked).components
    assert found.filter(component="text").row(0, named=True)["asked_b"] == 0
    assert found.filter(component="text").row(0, named=True)["tokens_b"] == 0


def test_keys_are_dotted_and_empty_mappings_are_values():
    assert flat({"a": {"b": 1, "c": {}}, "d": [1, 2]}) == {"a.b": "1", "a.c": "{}", "d": "[1, 2]"}
