"""Probing reads a few rows of every subset, here and at a hub on loopback."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from mixtures.mixture_file import load
from pipelines.__main__ import main
from pipelines.probing import fails, probe
from pipelines.readiness import ready
from pipelines.survey import Place
from tests.hub_server import Hub
from tests.laid_out import lay_out
from tests.pipelines.sources.making import IMAGE, TEXTS, cell, png, qa, write_parquet
from tokenization.schema import Encoding

ROOT = Path(__file__).parents[2]
SMALL = """
tokens: max
encoding: {seq_len: 4096, crop_size: 32, longest_edge: 64, tokens_per_crop: 4}
components:
  charts: {source: cauldron, ratio: 0.3, subsets: [chartqa]}
  text: {source: llava_onevision, ratio: 0.1, subsets: [mathqa]}
  clips: {source: llava_video, ratio: 0.2, subsets: [2_3_m_nextqa, llava_hound]}
  vista: {source: vista_400k, ratio: 0.1, subsets: [long_video_caption]}
  shared: {source: sharegpt4video, ratio: 0.1}
  several: {source: m4_instruct, ratio: 0.2}
"""


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    """The repositories of SMALL, and SMALL itself."""
    root = tmp_path_factory.mktemp("probe")
    (root / "small.yaml").write_text(SMALL)
    lay_out(root / "mirror", load(str(root / "small.yaml"), encoding=Encoding))
    return root


def place_of(root: Path, work: Path) -> Place:
    return Place(output=str(work / "out"), work=str(work / "work"), data=str(root), workers=0)


def test_every_layout_is_read_decoded_and_encoded(mirror, tmp_path):
    mixture = load(str(mirror / "small.yaml"), encoding=Encoding)
    findings = list(probe(mixture, place_of(mirror / "mirror", tmp_path)))
    assert {found.fault for found in findings} == {""}
    where = {f"{found.component}/{found.subset}": found.media for found in findings}
    assert where == {
        "charts/chartqa": "in the rows",
        "text/mathqa": "",
        "clips/2_3_m_nextqa": "in 2_3_m_nextqa/2_3_m_nextqa_videos_1.tar.gz",
        "clips/llava_hound": "in train_300k/chunk_0.tar.gz",
        "vista/long_video_caption": "in long_video_caption/long_video_caption_1.tar",
        "shared/default": "in zip_folder/mixit/mixkit_videos.zip",
        "several/m4_instruct_annotations": "in set.zip",
    }
    assert all(found.made.endswith("tokens") for found in findings)
    assert next(f.made for f in findings if f.component == "several").startswith("2 images")
    assert all(found.num_bytes > 0 for found in findings)


def test_at_the_hub_little_is_fetched_and_what_is_said_is_what_was_served(mirror, tmp_path, on_hub):
    with Hub(mirror / "mirror") as hub:
        some = [f"components.{name}.ratio=0" for name in ("text", "shared", "several", "vista")]
        words = [f"mixture={mirror}/small.yaml", *some, "components.clips.ratio=0.7"]
        done = on_hub(hub, "probe", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count(" ok ") == 3
        assert "HuggingFaceM4/the_cauldron" in done.stdout
        served = sum(hub.served.values())
    together = next(line for line in done.stdout.splitlines() if line.startswith("together"))
    assert f"{served / 1000:.3g} kB" in together or f"{served:,} B" in together
    assert not [name for name in hub.served if "README" in name]


def test_a_closed_gate_fails_a_component_and_not_an_optional_one(tmp_path, on_hub):
    (tmp_path / "small.yaml").write_text(
        "components:\n  films: {source: finevideo, ratio: 0.4}\n"
        "  star: {source: video_star, ratio: 0.1, optional: true, instead: [charts]}\n"
        "  charts: {source: cauldron, ratio: 0.5, subsets: [chartqa]}\n"
    )
    lay_out(tmp_path / "mirror", load(str(tmp_path / "small.yaml"), encoding=Encoding))
    with Hub(tmp_path / "mirror") as hub:
        hub.gated, hub.gated_repo = "hf_good", "HuggingFaceFV/finevideo"
        done = on_hub(hub, "probe", f"mixture={tmp_path}/small.yaml", token="hf_other")
    assert done.returncode == 1, done.stdout + done.stderr
    told = done.stdout
    assert "HuggingFaceFV/finevideo is gated, and this machine's token has no access" in told
    results = {line.split()[0]: line.split() for line in told.splitlines()[2:5]}
    assert results["films"][2] == "FAILS"
    assert results["star"][2] == "optional"
    assert results["charts"][2] == "ok"


def own(tmp_path: Path, source: str, rows: list, schema: pa.Schema | None = None, **more: str):
    write_parquet(tmp_path / "data" / "rows.parquet", rows, schema=schema)
    settings = "".join(f", {key}: {value}" for key, value in more.items())
    text = f"components: {{mine: {{source: {source}, ratio: 1, data: {tmp_path}/data{settings}}}}}"
    (tmp_path / "own.yaml").write_text(text)
    return load(str(tmp_path / "own.yaml"), encoding=Encoding)


def test_other_columns_are_named_with_the_source_that_reads_them(tmp_path):
    schema = pa.schema([("images", pa.list_(IMAGE)), ("texts", TEXTS)])
    rows = [{"images": [cell(png())], "texts": qa(("Q", "A"))}]
    mixture = own(tmp_path, "llava_onevision", rows, schema)
    (found,) = probe(mixture, Place(output="x", work=str(tmp_path / "work")))
    assert found.certain
    assert (
        "its rows have the columns images, texts; llava_onevision reads conversations"
        in found.fault
    )
    assert "are read by source" in found.way
    assert "cauldron" in found.way
    assert fails([found], mixture)
    mixture = own(tmp_path, "cauldron", [{"imagess": b"x", "textss": "y"}])
    (found,) = probe(mixture, Place(output="x", work=str(tmp_path / "work")))
    assert found.way == "nearest: imagess -> images, textss -> texts"


def test_broken_first_rows_fail_the_probe_and_not_the_build(tmp_path, capsys):
    rows = [{"messages": "not a list"}, {"messages": "neither"}]
    mixture = own(tmp_path, "smoltalk", rows)
    place = Place(output=str(tmp_path / "out"), work=str(tmp_path / "work"), workers=0)
    (found,) = probe(mixture, place)
    assert not found.certain
    assert found.fault.startswith(
        "none of its first 2 rows is whole: wrong_schema 2 (wrong_schema:"
    )
    assert main(["probe", f"mixture={tmp_path}/own.yaml"]) == 1
    ready(mixture, place)
    assert "The build goes on; see `probe`." in capsys.readouterr().out


def test_what_was_sound_is_not_looked_at_again(mirror, tmp_path):
    mixture = load(str(mirror / "small.yaml"), encoding=Encoding)
    place = place_of(mirror / "mirror", tmp_path)
    first = ready(mixture, place)
    assert len(first.probed) == len(mixture.components)
    assert not (tmp_path / "work").exists(), "nothing is written before the mixture is surveyed"
    for path, findings in first.probed.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(findings))
    assert ready(mixture, place).probed == {}
    unprobed = Place(**{**vars(place), "work": str(tmp_path / "other"), "probe": False})
    assert ready(mixture, unprobed).probed == {}
