"""Mixture files become mixtures, or one message that says where and why not."""

import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtures.checks import check_licences
from mixtures.config import Licences, Mixture, encoding_of, rules_of
from mixtures.mixture_file import load, to_yaml
from tests.mixtures.synthetic import mixture_of
from tokenization.schema import Encoding

PAGE = """
description: Documents, charts, video and text.
tokens: 2_000_000_000
encoding: {seq_len: 4096}
filters:
  small_image: {min_side: 28}
  empty_answer:
components:
  documents: {source: docmatix, ratio: 0.36}
  charts:
    source: cauldron
    subsets: {chartqa: {weight: 2}, dvqa: {keep: 0.05}, tabmwp: }
    ratio: 0.2995
    max_epochs: 2
    encoding: {longest_edge: 1024}
  video:
    source: llava_video
    ratio: 0.20
    frames: {max_frames: 32}
    filters: {too_short: {min_seconds: 2}, small_image: false}
  text: {source: smoltalk, subsets: [all, longalign], ratio: 0.14, learn: all}
  reasoning: {source: llava_cot, ratio: 0.0005, filters: {small_image: {min_side: 56}}}
"""


@pytest.fixture
def page(tmp_path: Path) -> str:
    path = tmp_path / "page.yaml"
    path.write_text(PAGE)
    return str(path)


def read(path: str, *overrides: str) -> Mixture:
    return load(path, overrides, encoding=Encoding)


def test_a_page_becomes_a_mixture(page):
    mixture = read(page)
    assert mixture.name == "page"
    assert mixture.tokens == 2_000_000_000
    assert isinstance(mixture.encoding, Encoding)
    assert mixture.encoding.seq_len == 4096
    assert list(mixture.components) == ["documents", "charts", "video", "text", "reasoning"]
    charts = mixture.components["charts"]
    assert charts.subsets["chartqa"].weight == 2
    assert charts.subsets["dvqa"].keep == 0.05
    assert list(charts.subsets) == ["chartqa", "dvqa", "tabmwp"]
    assert charts.max_epochs == 2
    assert mixture.components["documents"].max_epochs == 1
    assert list(mixture.components["text"].subsets) == ["all", "longalign"]
    assert mixture.components["video"].frames.max_frames == 32
    assert mixture.components["video"].frames.fps == 1


def test_what_is_written_reads_back_equal(page, tmp_path):
    mixture = read(page)
    again = tmp_path / "elsewhere.yaml"
    again.write_text(to_yaml(mixture))
    assert read(str(again)) == mixture


def test_rules_of_a_component_are_the_mixtures_with_its_own_laid_over(page):
    mixture = read(page)
    assert rules_of(mixture, "text") == {"small_image": {"min_side": 28}, "empty_answer": {}}
    assert rules_of(mixture, "reasoning")["small_image"] == {"min_side": 56}
    assert rules_of(mixture, "video") == {"empty_answer": {}, "too_short": {"min_seconds": 2}}
    assert list(rules_of(mixture, "reasoning")) == ["small_image", "empty_answer"]


def test_encoding_of_a_component_has_its_changes(page):
    mixture = read(page)
    assert encoding_of(mixture, "documents") == mixture.encoding
    assert encoding_of(mixture, "charts") == dataclasses.replace(
        mixture.encoding, longest_edge=1024
    )
    assert encoding_of(mixture, "text").learn == "all"


def test_overrides_are_laid_over_the_file(page):
    mixture = read(
        page,
        "tokens=1_000",
        "name=other",
        "components.charts.subsets.dvqa.keep=0.5",
        "filters.small_image.min_side=32",
        "encoding.seq_len=512",
        "components.text.subsets=[all]",
        "components.reasoning.ratio=0",
        "components.more.source=magpie",
        "components.more.ratio=0.0005",
    )
    assert mixture.name == "other"
    assert mixture.tokens == 1000
    assert mixture.components["charts"].subsets["dvqa"].keep == 0.5
    assert mixture.components["charts"].subsets["chartqa"].weight == 2
    assert mixture.filters["small_image"] == {"min_side": 32}
    assert mixture.encoding.seq_len == 512
    assert list(mixture.components["text"].subsets) == ["all"]
    assert "reasoning" not in mixture.components
    assert mixture.components["more"].source == "magpie"


def test_subset_names_with_brackets_can_be_overridden(tmp_path):
    path = tmp_path / "m.yaml"
    path.write_text(
        "components:\n  text:\n    source: llava_onevision\n    ratio: 1\n    subsets:\n"
        "      ai2d(cauldron,llava_format): {keep: 0.5}\n"
    )
    name = "ai2d(cauldron,llava_format)"
    assert read(str(path)).components["text"].subsets[name].keep == 0.5
    mixture = read(str(path), f"components.text.subsets[{name}].keep=0.25")
    assert mixture.components["text"].subsets[name].keep == 0.25


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("tokesn=3", "page.yaml: unknown key 'tokesn'. Did you mean 'tokens'?"),
        ("components.text.ratoi=3", "components.text.ratoi'. Did you mean 'ratio'?"),
        ("components.vidoe.ratio=0.2", "no component 'vidoe'. Did you mean 'video'?"),
        ("components.text.subsets.all.kep=1", "subsets.all.kep'. Did you mean 'keep'?"),
        ("encoding.seqlen=4", "'encoding.seqlen'. Did you mean 'seq_len'?"),
        ("components.text.encoding.longst_edge=4", "Did you mean 'longest_edge'?"),
        ("components.text.encoding.seq_len=4", "share packed rows"),
        ("components.text.ratio=0.2", "ratios sum to 1.06, not 1 (documents 0.36, charts 0.2995"),
        ("components.text.ratio=-0.14", "components.text.ratio is -0.14; expected 0 to 1"),
        ("components.text.ratio=lots", "components.text.ratio: Value 'lots'"),
        ("components.text.max_epochs=0", "components.text.max_epochs is 0.0; expected more than 0"),
        ("components.charts.subsets.dvqa.keep=0", "keep is 0.0; expected above 0, at most 1"),
        ("components.charts.subsets.dvqa.keep=1.1", "keep is 1.1; expected above 0, at most 1"),
        ("components.charts.subsets.dvqa.weight=0", "weight is 0.0; expected more than 0"),
        ("components.charts.subsets.dvqa.max_samples=0", "max_samples is 0; expected more than"),
        ("components.charts.subsets=3", "components.charts.subsets"),
        ("components.video.frames.fps=0", "frames.fps is 0.0; expected more than 0"),
        ("components.new.source=cauldron", "components.new.ratio is missing"),
        ("filters.small_image=28", "filters.small_image is 28; expected `setting: value` pairs"),
        ("filters.small_image=false", "filters.small_image is False; expected"),
        ("tokens=many", "tokens is 'many'; expected a whole number above 0, or `max`"),
        ("tokens=0", "tokens is 0; expected a whole number above 0"),
        ("tokens=true", "tokens"),
        ("measure=token", "measure: Invalid value 'token', expected one of ['tokens'"),
        ("val_fraction=0.6", "val_fraction is 0.6; expected 0 to 0.5"),
        ("limits.cot.max_ratio=2", "limits.cot.max_ratio is 2.0; expected 0 to 1"),
        ("limits.cot={component: vidoe, max_ratio: 0.1}", "limits.cot.component is 'vidoe'"),
        ("limits.cot.modality=audio", "limits.cot.modality"),
        ("grades.5=-1", "grades.5 is -1"),
        ("on_shortage=cry", "on_shortage: Invalid value 'cry'"),
        ("components={}", "components"),
        ("nonsense", "override 'nonsense': expected key=value"),
        ("tokens=[1", "override 'tokens=[1': value not readable as YAML"),
    ],
)
def test_a_mistake_is_one_message_with_file_and_key(page, override, says):
    if override == "components={}":
        Path(page).write_text("tokens: 5\n")
    with pytest.raises(ValueError, match=re.escape(says)):
        read(page, override)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("components: [1\nb: 2", "not readable as YAML"),
        ("tokens: 1\ntokens: 2", "duplicate"),
        ("- a\n- b", "expected `key: value` lines"),
        ("", "expected `key: value` lines"),
        ("just words", "just words"),
        ("components: {a: {ratio: 1}}", "components.a.source is missing"),
        ("components: {a: }", "components.a"),
        ("components: {a/b: {source: x, ratio: 1}}", "in a component's name"),
    ],
)
def test_a_bad_file_is_one_message(tmp_path, text, says):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"bad\.yaml") as caught:
        read(str(path))
    assert says in str(caught.value)


def test_a_missing_file_names_what_there_is(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.yaml not found.*bundled"):
        read(str(tmp_path / "nowhere.yaml"))
    with pytest.raises(FileNotFoundError, match="not found"):
        read("no_such_mixture")


def test_a_base_is_laid_under_once(page, tmp_path):
    child = tmp_path / "child.yaml"
    child.write_text(f"base: {page}\nencoding: {{position_tokens: string}}\n")
    mixture, base = read(str(child)), read(page)
    assert mixture == dataclasses.replace(
        base, name="child", encoding=dataclasses.replace(base.encoding, position_tokens="string")
    )
    grandchild = tmp_path / "grandchild.yaml"
    grandchild.write_text(f"base: {child}\n")
    with pytest.raises(ValueError, match="has a base itself"):
        read(str(grandchild))


@settings(max_examples=15)
@given(parts=st.lists(st.integers(1, 1000), min_size=1, max_size=12))
def test_ratios_need_to_sum_to_one(tmp_path_factory, parts):
    path = tmp_path_factory.mktemp("ratios") / "m.yaml"
    total = sum(parts)
    lines = [f"  c{i}: {{source: x, ratio: {p / total!r}}}" for i, p in enumerate(parts)]
    path.write_text("components:\n" + "\n".join(lines))
    assert abs(sum(c.ratio for c in read(str(path)).components.values()) - 1) <= 1e-6
    with pytest.raises(ValueError, match="ratios sum to"):
        read(str(path), "components.extra.source=x", "components.extra.ratio=0.00001")


def test_licences_that_are_refused_are_all_named():
    terms = {"a": ["MIT"], "b": ["CC-BY-NC-4.0", "non-commercial"], "c": ["Apache-2.0"]}
    ratios = {"a": 0.3, "b": 0.3, "c": 0.4}
    check_licences(mixture_of(ratios), terms)
    with pytest.raises(ValueError, match=r"b \(non-commercial: in licenses.forbid\)"):
        check_licences(mixture_of(ratios, licenses=Licences(forbid=["non-commercial"])), terms)
    with pytest.raises(ValueError, match=r"b \(CC-BY.*\); c \(Apache-2.0: not in"):
        check_licences(mixture_of(ratios, licenses=Licences(allow=["MIT"])), terms)


@pytest.mark.parametrize(
    ("edge", "right"), [(512, True), (2048, True), (700, False), (4096, False)]
)
def test_a_components_longest_edge_is_whole_crops_within_the_mixtures(tmp_path, edge, right):
    path = tmp_path / "m.yaml"
    own = f"encoding: {{longest_edge: {edge}}}"
    path.write_text(f"components: {{a: {{source: cauldron, ratio: 1, {own}}}}}")
    if right:
        assert load(str(path), encoding=Encoding).components["a"].encoding["longest_edge"] == edge
    else:
        with pytest.raises(ValueError, match=r"components.a.encoding.longest_edge is .* multiple"):
            load(str(path), encoding=Encoding)


def test_names_that_yaml_takes_for_values_are_names(tmp_path):
    path = tmp_path / "names.yaml"
    path.write_text(
        "components:\n"
        "  no: {source: messages, data: x, ratio: 0.5, subsets: [en, no, 2014, null, 1e3, 007],\n"
        "       tags: [on]}\n"
        "  2014: {source: messages, data: y, ratio: 0.5, subsets: {off: {weight: 2}, yes: }}\n"
        "licenses: {forbid: [no]}\n"
    )
    mixture = load(str(path), encoding=Encoding)
    assert list(mixture.components) == ["no", "2014"]
    assert list(mixture.components["no"].subsets) == ["en", "no", "2014", "null", "1e3", "007"]
    assert list(mixture.components["2014"].subsets) == ["off", "yes"]
    assert mixture.components["no"].tags == ["on"]
    assert mixture.licenses.forbid == ["no"]
    with pytest.raises(
        ValueError, match=r"components.\w+.subsets: found false among the names.*in quotes"
    ):
        load(str(path), ["components.no.subsets=[en,no]"], encoding=Encoding)


@pytest.mark.parametrize(
    ("subsets", "found"),
    [
        ("no", "components.x.subsets is False"),
        ("en", "components.x.subsets is 'en'"),
        ("{en: 2, 'no': {}}", "components.x.subsets.en is 2"),
    ],
)
def test_subsets_that_are_no_list_say_how_they_are_written(tmp_path, subsets, found):
    path = tmp_path / "m.yaml"
    path.write_text(f"components:\n  x: {{source: messages, ratio: 1, subsets: {subsets}}}\n")
    with pytest.raises(ValueError, match=rf"{found}; expected a list.*\nway out: write"):
        load(str(path), encoding=Encoding)
