"""What a mixture needs that is not there is said in the first seconds, with the way to get it."""

import json
import re

import pytest
from huggingface_hub import constants

from mixtures.mixture_file import load
from mixtures.reading import bundled_mixtures
from pipelines.__main__ import main
from pipelines.availability import Lack, lacks_of, refuse, settled
from pipelines.survey import Place
from tests.building import build, words
from tests.laid_out import lay_out
from tokenization.schema import Encoding

PLACE = Place(output="out/x", work="out/work")


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path):
    """No token of the hub, which may be asked."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))


def mixture(tmp_path, text: str):
    file = tmp_path / "small.yaml"
    file.write_text(text)
    return load(str(file), encoding=Encoding)


STAR = """
tokens: max
encoding: {seq_len: 2048, crop_size: 32, longest_edge: 64, tokens_per_crop: 4}
components:
  star: {source: video_star, ratio: 0.4, subsets: [starb], %s}
  charts: {source: cauldron, ratio: 0.6, subsets: [chartqa]}
"""


def test_videos_that_no_repository_holds_are_known_without_reading(tmp_path):
    made = mixture(tmp_path, STAR % "max_epochs: 1")
    (lack,) = lacks_of(made, PLACE, asking=False)
    assert lack.what.startswith("the videos of starb are not in orrzohar/Video-STaR")
    assert "https://prior.allenai.org/projects/charades" in lack.way
    assert "components.star.media=FOLDER" in lack.way
    with pytest.raises(ValueError, match=r"cannot be finished:\n  star \(40 %\): the videos"):
        refuse(made, [lack])
    named = mixture(tmp_path, STAR % f"media: '{tmp_path}'")
    assert lacks_of(named, PLACE, asking=False) == []


@pytest.mark.parametrize(
    ("what", "shown"),
    [
        ("no file there", "star (40 %): no file there.\n"),
        ("no file there.", "star (40 %): no file there.\n"),
        ("a.json: broken.\nfound: [\nway out: mend it.",
         "star (40 %): a.json: broken.\n    found: [\n    way out: mend it.\n"),
    ],
)  # fmt: skip
def test_what_others_said_ends_with_one_full_stop(tmp_path, what, shown):
    made = mixture(tmp_path, STAR % "max_epochs: 1")
    lack = Lack(component="star", what=what, need="", way="fetch it.")
    with pytest.raises(ValueError, match=re.escape(f"{shown}    Way out: fetch it.\n")):
        refuse(made, [lack])


def test_an_optional_component_leaves_its_share(tmp_path):
    made = mixture(tmp_path, STAR % "optional: true, instead: [charts]")
    rest, left, lacks = settled(made, PLACE, asking=False)
    assert lacks == []
    assert {name: c.ratio for name, c in rest.components.items()} == {"charts": 1.0}
    assert "star (optional, 40 %) is left out" in left[0].sentence


def test_a_mirror_is_looked_at_before_the_source_is_believed(tmp_path):
    made = mixture(tmp_path, STAR % "max_epochs: 1")
    mirror = lay_out(tmp_path / "mirror", made)
    place = Place(output="x", work="y", data=str(mirror))
    assert len(lacks_of(made, place, asking=True)) == 1
    (mirror / "orrzohar" / "Video-STaR" / "starb").mkdir()
    (mirror / "orrzohar" / "Video-STaR" / "starb" / "0.mp4").write_bytes(b"a video")
    assert lacks_of(made, place, asking=True) == []
    gone = Place(output="x", work="y", data=str(tmp_path / "elsewhere"))
    assert [lack.component for lack in lacks_of(made, gone, asking=True)] == ["star", "charts"]


def test_hounds_frames_come_from_the_repository_that_holds_them(tmp_path):
    text = STAR.replace("source: video_star", "source: llava_video")
    made = mixture(tmp_path, text.replace("[starb]", "[llava_hound]") % "max_epochs: 1")
    mirror = lay_out(tmp_path / "mirror", made)
    place = Place(output="x", work="y", data=str(mirror))
    assert lacks_of(made, place, asking=True) == []
    (mirror / "ShareGPTVideo").rename(tmp_path / "away")
    (lack,) = lacks_of(made, place, asking=True)
    assert "ShareGPTVideo/train_video_and_instruction" in lack.what
    assert lacks_of(made, PLACE, asking=False) == [], "the hub has them"


def test_a_gate_needs_a_token_and_says_where_to_ask(tmp_path, monkeypatch):
    made = mixture(tmp_path, "components: {a: {source: finevideo, ratio: 1}}")
    (lack,) = lacks_of(made, PLACE, asking=False)
    assert lack.need == "access to HuggingFaceFV/finevideo"
    assert "https://huggingface.co/datasets/HuggingFaceFV/finevideo" in lack.way
    assert "HF_TOKEN" in lack.way
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    assert lacks_of(made, PLACE, asking=False) == []


def test_texts_that_are_ids_and_files_of_your_own_are_said(tmp_path):
    made = mixture(
        tmp_path,
        "components: {edu: {source: stack_edu, ratio: 0.5}, mine: {source: llava, ratio: 0.5}}",
    )
    edu, mine = lacks_of(made, PLACE, asking=False)
    assert "softwareheritage" in edu.way
    assert "components.edu.data=FOLDER" in edu.way
    assert mine.need == "your files"


def test_the_plan_says_whether_a_mixture_can_be_finished(capsys, tmp_path):
    assert main(["plan", "mixture=sft_v2_open", f"output={tmp_path}/x"]) == 0
    told = capsys.readouterr().out
    assert "can be finished: yes" in told
    assert "videos of 2.3 minutes on average" in told
    assert "of sft_v2 it differs in shares: video_finevideo 17.55 -> 0 %" in told
    assert main(["plan", "mixture=sft_v2", f"output={tmp_path}/x"]) == 0
    told = capsys.readouterr().out
    assert "can be finished: needs access to HuggingFaceFV/finevideo" in told
    assert "video_star (optional, 1 %) is left out" in told
    assert "mixture=sft_v2_open stands in" in told
    assert "videos of 3.5 minutes on average" in told


def test_a_mirror_without_videos_is_refused_before_anything_is_read(tmp_path, capsys):
    text = STAR.replace("source: video_star", "source: llava_video")
    text = text.replace("[starb]", "[2_3_m_nextqa, 2_3_m_youtube_v0_1]") % "max_epochs: 1"
    made = mixture(tmp_path, text)
    mirror = lay_out(tmp_path / "mirror", made)
    for archive in mirror.rglob("*.tar.gz"):
        archive.unlink()
    assert main(words(tmp_path / "small.yaml", tmp_path, f"data={mirror}")) == 2
    told = capsys.readouterr().err
    assert "star (40 %): 2_3_m_nextqa: missing_media: rows name 'clips/2_3_m_nextqa_0.mp4'" in told
    assert "so are 2_3_m_youtube_v0_1" in told
    assert "components.star.media=FOLDER" in told
    assert not (tmp_path / "work").exists()


def test_what_is_left_out_stands_in_the_card_and_not_in_the_fingerprint(tmp_path, capsys):
    mixture(tmp_path, STAR % "optional: true, instead: [charts]")
    made = load(str(tmp_path / "small.yaml"), encoding=Encoding)
    mirror = lay_out(tmp_path / "mirror", made)
    said = [f"data={mirror}", f"work={tmp_path}/work"]
    build(tmp_path / "small.yaml", tmp_path / "a", *said)
    assert "star (optional, 40 %) is left out" in capsys.readouterr().out
    card = (tmp_path / "a" / "mix" / "README.md").read_text()
    assert "is left out: the videos of starb" in card
    assert "Nothing was checked against any benchmark" in card
    alone = ["components.star.ratio=0", "components.charts.ratio=1"]
    build(tmp_path / "small.yaml", tmp_path / "b", *said, *alone)
    one, other = (json.loads((tmp_path / n / "mix" / "recipe.json").read_text()) for n in "ab")
    assert one["fingerprint"] == other["fingerprint"]


def test_a_shortage_leads_with_what_is_known_of_missing_media(tmp_path, capsys):
    mixture(tmp_path, STAR % f"max_epochs: 1, media: {tmp_path}/videos")
    (tmp_path / "videos").mkdir()
    mirror = lay_out(tmp_path / "mirror", load(str(tmp_path / "small.yaml"), encoding=Encoding))
    said = words(tmp_path / "small.yaml", tmp_path, f"data={mirror}", "probe=false")
    assert main(said) == 2
    told = capsys.readouterr().err
    start = (
        "small: star: all 4 rows read were rejected: missing_media 4 (the videos of starb are not"
    )
    assert start in told
    assert "components.star.media=FOLDER" in told.partition("Ways out")[0]


def test_one_table_says_of_every_bundled_mixture_what_it_needs(capsys):
    assert main(["plan", "mixture=all"]) == 0
    told = capsys.readouterr().out
    lines = {line.split()[0]: line for line in told.splitlines()[2:] if not line.startswith(" ")}
    assert set(lines) == set(bundled_mixtures())
    for name, line in lines.items():
        assert (" yes" in line) == (
            name.endswith("_open") or name in ("vision_stage", "dcvlm_baseline")
        ), line
    assert "needs access to HuggingFaceFV/finevideo" in lines["sft_v2"]
    assert "3.5 min" in lines["sft_v2"]
    assert "2.3 min" in lines["sft_v2_open"]
    assert "needs the texts of HuggingFaceTB/stack-edu" in lines["smollm2_stage4"]
    assert "not as it stands" not in told
