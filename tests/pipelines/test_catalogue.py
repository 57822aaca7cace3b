"""The registry as text, and the registry itself."""

import pytest

from pipelines import catalogue, sources
from pipelines.sources.sample import terms_of
from tests.pipelines.sources.making import qa, write_parquet

NAMES = [
    "cauldron",
    "docmatix",
    "mathwriting",
    "finevision",
    "llava",
    "llava_onevision",
    "llava_video",
    "m4_instruct",
    "mammoth_vl",
    "video_star",
    "vista_400k",
    "sharegpt4video",
    "llava_cot",
    "vript",
    "moviechat",
    "finevideo",
    "smoltalk",
    "magpie",
    "messages",
    "documents",
    "webdataset",
    "dcvlm",
    "imagefolder",
    "table",
    *("preferences", "rlaif_v", "rlhf_v", "vlfeedback", "mmpr"),  # pairs of answers
    # ARCHITECTURE 5.7 ends here; the text corpora of SmolLM2's stages:
    "codeparrot_clean",
    "dclm",
    "dolma_books",
    "finemath",
    "fineweb_edu",
    "open_web_math",
    "smollm_corpus",
    "stack_edu",
    "starcoderdata",
    "the_stack",
]


def test_every_source_of_the_contract_is_registered_and_says_its_terms():
    assert sorted(sources.SOURCES) == sorted(NAMES)
    for source in sources.SOURCES.values():
        assert source.licence != "unknown", source.name
        assert source.citation.startswith("https://"), source.name
        assert source.verified, source.name
        assert source.layout in catalogue.LAYOUTS
        assert set(source.default) <= set(source.subsets)
        assert source.adapter.__doc__


def test_the_cauldron_has_its_fifty_configs():
    assert len(sources.SOURCES["cauldron"].subsets) == 50


def test_table_has_a_line_per_source():
    lines = catalogue.source_table().splitlines()
    assert [line.split()[0] for line in lines[2:]] == sorted(NAMES)
    assert any("non-commercial" in line and "gated" not in line for line in lines)
    assert "| `docmatix` | HuggingFaceM4/Docmatix |" in catalogue.source_markdown()
    assert catalogue.source_markdown().count("\n") == len(NAMES) + 1


def test_about_shows_facts_and_a_whole_sample(tmp_path):
    rows = [{"images": [], "texts": []}, {"images": [], "texts": qa(("Q" * 500, "A"))}]
    write_parquet(tmp_path / "ai2d" / "train-0.parquet", rows)
    told = str(catalogue.describe_source("cauldron", data=str(tmp_path)))
    assert "HuggingFaceM4/the_cauldron" in told
    assert "cauldron/ai2d/000001" in told
    assert "assistant: A" in told
    assert "Q..." in told
    assert "Name data=FOLDER" in str(catalogue.describe_source("cauldron"))
    with pytest.raises(ValueError, match="Did you mean 'cauldron'"):
        catalogue.describe_source("couldron")


def test_terms_are_what_a_mixture_may_forbid():
    assert "non-commercial" in terms_of("mathwriting")
    assert terms_of("docmatix") == ["MIT"]


def test_describe_is_json_able():
    import json

    for name in NAMES:
        assert json.loads(json.dumps(sources.describe(sources.SOURCES[name])))["source"] == name
