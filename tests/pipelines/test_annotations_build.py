"""Annotations beside the data become facts: joined by shard and key, counted, part of identity."""

import json
import shutil
from itertools import pairwise

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.__main__ import main
from pipelines.fact_counts import BINS, OUTER, TAIL, edges_of
from pipelines.report.finished import open_finished
from pipelines.report.page import report, stat_plots
from pipelines.report.tails import tails
from tests.building import build, digests, words
from tests.pipelines.dcvlm_pool import SHARD, annotation, pool
from tests.pipelines.sources.making import coarse_jpeg, tar, write, write_lines

ENCODING = """
tokens: max
measure: samples
val_fraction: 0
on_shortage: shrink
encoding: {seq_len: 1024, crop_size: 64, longest_edge: 64, tokens_per_crop: 4}
"""
MIXTURE = (
    ENCODING
    + """
annotations:
  files: ./annotations/{subset}/{shard}.json
  fields: {quality: quality.score, perplexity: perplexity}
filters:
  out_of_bounds: {facts: {quality: {min: 0.2}}}
  beyond_quantile: {facts: {perplexity: {highest: 0.25}}, mode: mark}
weight_by: quality
components:
  instruction: {source: dcvlm, data: ./pool, subsets: [ai2d], ratio: 0.7}
  text: {source: dcvlm, data: ./pool, subsets: [flanv2], ratio: 0.15}
  caption: {source: dcvlm, data: ./pool, subsets: [datacomp_1b], ratio: 0.1}
  interleaved: {source: dcvlm, data: ./pool, subsets: [docs], ratio: 0.05}
"""
)
SMALL = (
    ENCODING
    + """
annotations: {files: FILES, fields: {quality: quality.score}}
filters: {out_of_bounds: {facts: {quality: {min: 0.2}}}}
components: {text: {source: dcvlm, data: ./pool, subsets: [flanv2], ratio: 1}}
"""
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder of the pool, the finished mixture)."""
    folder = pool(tmp_path_factory.mktemp("dcvlm"))
    write(folder / "mix.yaml", MIXTURE)
    return folder, build(folder / "mix.yaml", folder / "out")


def index_of(folder):
    return pl.read_ipc(folder / "index.arrow")


def stats_of(folder):
    return json.loads((folder / "stats.json").read_text())


def number_of(sample_id):
    """The sample's number in the pool: of its shard and its place there."""
    shard, place = sample_id.rpartition("/")[2].split("-")
    return int(shard) * SHARD + int(place)


def test_every_kind_of_the_pool_is_read_and_judged_by_its_annotation(made):
    _, mix = made
    index = index_of(mix)
    assert len(index) == 4 * 2 * SHARD
    assert set(index["modality"].cast(pl.String)) == {"image", "text", "multi_image"}
    for sample_id, rule in index.select("id", pl.col("rule").cast(pl.String)).iter_rows():
        low = annotation("", number_of(sample_id))["quality"]["score"] < 0.2
        assert rule == ("out_of_bounds" if low else None), sample_id


def test_what_its_annotation_took_out_is_shown_as_it_was_read(made, capsys):
    folder, mix = made
    assert main(["show", str(mix), "rule=out_of_bounds", f"work={folder}/out/work"]) == 0
    told = capsys.readouterr().out
    assert "user: " in told
    assert "no longer in" not in told


def test_quantiles_are_of_what_is_left_of_a_component(made):
    index = index_of(made[1]).filter(pl.col("component") == "text")
    marked = index.filter(pl.col("fired").cast(pl.List(pl.String)).list.contains("beyond_quantile"))
    left = sorted(number_of(i) for i in index.filter(pl.col("rule").is_null())["id"])
    assert sorted(map(number_of, marked["id"])) == left[-(len(left) // 4) :]


def test_a_weight_of_zero_is_never_drawn_and_the_heavy_are_drawn_more(tmp_path):
    changed = {
        f"flanv2/{shard:06d}": {
            f"{n:06d}": {"quality": {"score": 0 if n % 2 else 1}}
            for n in range(shard * SHARD, (shard + 1) * SHARD)
        }
        for shard in range(2)
    }
    folder = pool(tmp_path, changed=changed)
    text = SMALL.replace("FILES", "'./annotations/{subset}/{shard}.json'").replace(
        "filters: {out_of_bounds: {facts: {quality: {min: 0.2}}}}", "weight_by: quality"
    )
    write(folder / "mix.yaml", text.replace("tokens: max", "tokens: 150"))
    index = index_of(build(folder / "mix.yaml", tmp_path / "out"))
    used = index.filter(pl.col("copies") > 0)["id"].to_list()
    assert used
    assert all(number_of(i) % 2 == 0 for i in used)


def test_one_changed_file_re_judges_its_part_and_reads_nothing_again(made, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(made[0], folder)
    work = folder / "out" / "work"
    before = {path for path in work.rglob("*.arrow")}
    said = {f"{n:06d}": {"quality": {"score": 0.9}, "perplexity": 1} for n in range(SHARD)}
    write(folder / "annotations" / "ai2d" / "000000.json", said)
    index = index_of(build(folder / "mix.yaml", folder / "out", "overwrite=true"))
    new = {path.relative_to(work).parts[0] for path in work.rglob("*.arrow") if path not in before}
    verdicts = [p for p in (work / "verdicts").rglob("0*.arrow") if p not in before]
    assert len(verdicts) == 1
    assert "samples" not in new
    assert "tokens" not in new
    of_part = index.filter(pl.col("id").str.starts_with("dcvlm/ai2d/00000-"))
    assert of_part["rule"].null_count() == SHARD


def test_where_the_files_lie_and_how_they_are_written_changes_no_result(made, tmp_path):
    folder = pool(tmp_path)
    rows = [{"id": f"{n:06d}", **annotation("", n)} for n in range(2 * SHARD)]
    for shard in range(2):
        pq.write_table(
            pa.Table.from_pylist(rows[shard * SHARD : (shard + 1) * SHARD]),
            folder / f"flanv2-{shard:06d}.parquet",
        )
    write_lines(folder / "all.jsonl", rows)
    found = []
    for files, key in (
        ("./annotations/{subset}/{shard}.json", ""),
        (f"{folder}/{{subset}}-{{shard}}.parquet", "file_key: id, "),
        (f"file://{folder}/{{subset}}-{{shard}}.parquet", "file_key: id, "),
        ("./all.jsonl", "file_key: id, "),
    ):
        text = SMALL.replace("files: FILES", f"{key}files: '{files}'")
        write(folder / "mix.yaml", text)
        mix = build(folder / "mix.yaml", tmp_path / "out", "overwrite=true")
        found.append((digests(mix)["index.arrow"], stats_of(mix)["annotations"]))
    assert all(one == found[0] for one in found)


def test_what_is_missing_is_null_and_counted(tmp_path):
    said = {f"{n:06d}": annotation("", n) for n in range(SHARD)}
    del said["000000"]
    said["000001"] = {"quality": {"score": "good"}}
    said["000002"] = {"quality": {"score": None}}
    said["000003"] = {"perplexity": 3}
    said["nobody"] = {"quality": {"score": 1}}
    folder = pool(tmp_path, changed={"flanv2/000000": said})
    (folder / "annotations" / "flanv2" / "000001.json").unlink()
    text = SMALL.replace(
        "files: FILES", "incomplete: true, files: './annotations/{subset}/{shard}.json'"
    )
    write(folder / "mix.yaml", text)
    mix = build(folder / "mix.yaml", tmp_path / "out")
    found = stats_of(mix)["annotations"]["text"]
    assert found["read"] == 2 * SHARD
    assert found["missing"] == {
        "file": SHARD,
        "key": 1,
        "quality: no such field": 1,
        "quality: not a number": 1,
        "quality: null": 1,
    }
    card = (mix / "README.md").read_text()
    assert "## Annotations" in card
    assert "quality: not a number" in card
    rules = index_of(mix).select(pl.col("rule").cast(pl.String))["rule"]
    assert rules.null_count() == 2 * SHARD - 2  # 10 and 11 of the first shard are low
    assert main(["check", str(mix)]) == 0


@pytest.mark.parametrize(
    ("change", "words_"),
    [
        ({"FILES": "'./annotations/{subset}/{shrd}.json'"}, "Did you mean {shard}"),
        ({"FILES": "'./annotations/{subset}/{shard}.parquet'"}, "2 of 2 shards of subset 'flanv2'"),
        ({"FILES": "./annotations"}, "have no file of annotations"),
        ({"FILES": "'./nowhere/{shard}.json'"}, "expected: ./nowhere/000000.json"),
        ({"quality.score": "quality.scor"}, "Did you mean 'quality.score'"),
        ({"quality.score": "lang"}, "holds no number"),
        ({"{quality: {min": "{qualty: {min"}, "Did you mean 'quality'"),
        ({"fields: {quality: quality.score}": "fields: {min_side: perplexity}"}, "have already"),
        ({"fields: {quality: quality.score}": "fields: {}"}, "fields is empty"),
        ({"FILES": "'./annotations/{subset}/{shard}.json', key: id"}, "are members of tars"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_message_before_anything_is_read(made, tmp_path, capsys, change, words_):
    text = SMALL
    for old, new in {"FILES": "'./annotations/{subset}/{shard}.json'", **change}.items():
        text = text.replace(old, new)
    write(made[0] / "mistake.yaml", text)
    with pytest.raises(SystemExit) as stopped:
        raise SystemExit(main(words(made[0] / "mistake.yaml", tmp_path)))
    assert stopped.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert words_ in said, said
    assert not list(tmp_path.rglob("*.arrow"))


def test_without_annotations_a_recipe_is_what_it_was(tmp_path):
    folder = pool(tmp_path, shards=1)
    text = SMALL.replace("annotations: {files: FILES, fields: {quality: quality.score}}\n", "")
    write(
        folder / "mix.yaml",
        text.replace("filters: {out_of_bounds: {facts: {quality: {min: 0.2}}}}", ""),
    )
    mix = build(folder / "mix.yaml", tmp_path / "out")
    recipe = json.loads((mix / "recipe.json").read_text())
    assert "annotations" not in recipe["mixture"]
    assert "annotations" not in recipe["mixture"]["components"]["text"]
    assert not {"key", "shards", "annotations"} & recipe["inputs"]["text/flanv2"].keys()
    assert "annotations" not in stats_of(mix)


def test_rows_of_json_lines_are_joined_by_a_column_and_keys_may_have_folders(tmp_path):
    rows = [
        {"meta": {"id": n}, "messages": [{"role": "user", "content": f"Which is number {n}?"},
                                         {"role": "assistant", "content": f"It is number {n}."}]}
        for n in range(6)
    ]  # fmt: skip
    write_lines(tmp_path / "rows" / "part-0.jsonl", rows)
    write_lines(
        tmp_path / "notes.jsonl", [{"id": n, "quality": {"score": n / 10}} for n in range(6)]
    )
    image = lambda n: [
        (f"./deep/er/{n}.jpg", coarse_jpeg(n)),
        (f"./deep/er/{n}.txt", b"A pattern, here."),
    ]
    tar(tmp_path / "tars" / "t" / "x.tar", [member for n in range(6) for member in image(n)])
    said = {f"deep/er/{n}": {"quality": {"score": n / 10}} for n in range(6)}
    write(tmp_path / "t-x.json", "\ufeff" + json.dumps(said))
    components = """
components:
  rows:
    source: messages
    data: ./rows/part-0.jsonl
    ratio: 0.5
    annotations:
      {files: ./notes.jsonl, key: meta.id, file_key: id, fields: {quality: quality.score}}
  tars: {source: webdataset, data: ./tars, subsets: [t], ratio: 0.5}
"""
    text = SMALL.replace("files: FILES", "files: './{subset}-{shard}.json'").partition(
        "components:"
    )[0]
    write(tmp_path / "mix.yaml", text + components)
    mix = build(tmp_path / "mix.yaml", tmp_path / "out")
    assert all(not about["missing"] for about in stats_of(mix)["annotations"].values())
    index = index_of(mix)
    assert index.filter(pl.col("rule").cast(pl.String) == "out_of_bounds").height == 4


def test_scores_by_the_ids_of_the_index_are_joined_and_nothing_is_read_again(tmp_path):
    """As `trainer score` writes them: one file, a line per id, nulls; some ids may be absent."""
    folder = pool(tmp_path)
    plain = SMALL.partition("annotations:")[0] + SMALL[SMALL.index("components:") :]
    write(folder / "mix.yaml", plain)
    before = index_of(build(folder / "mix.yaml", folder / "out"))
    ids = sorted(before["id"])
    gains = {name: None if n == 1 else n - 2.0 for n, name in enumerate(ids[:-1])}
    scores = {"id": list(gains), "visual_gain": pa.array(gains.values(), pa.float32())}
    pq.write_table(pa.table(scores), folder / "scores.parquet")
    written = "annotations: {files: ./scores.parquet, key: __id__, fields: {gain: visual_gain}}\n"
    rule = "filters: {out_of_bounds: {facts: {gain: {min: 0}}}}\n"
    write(folder / "mix.yaml", plain.replace("components:", f"{written}{rule}components:"))
    samples = sorted((folder / "out" / "work" / "samples").rglob("*.arrow"))
    mix = build(folder / "mix.yaml", folder / "out", "overwrite=true")
    assert sorted((folder / "out" / "work" / "samples").rglob("*.arrow")) == samples
    gone = index_of(mix).filter(pl.col("rule").cast(pl.String) == "out_of_bounds")["id"].to_list()
    assert gone == [name for name, gain in gains.items() if gain is not None and gain < 0]
    missing = stats_of(mix)["annotations"]["text"]["missing"]
    assert missing["key"] == 1
    assert sum(missing.values()) == 2
    write(folder / "mix.yaml", plain.replace("components:", written.replace(
        "./scores", "./{shard}") + "components:"))  # fmt: skip
    assert main(words(folder / "mix.yaml", folder / "out", "overwrite=true")) == 2


def test_two_files_of_one_shards_name_are_refused(tmp_path, capsys):
    """Of a glob over folders, whose numbers all begin at 0."""
    folder = pool(tmp_path)
    text = SMALL.replace("FILES", "'./annotations/{subset}/{shard}.json'")
    write(folder / "mix.yaml", text.replace("./pool, subsets: [flanv2]", "'./pool/*/*.tar'"))
    assert main(words(folder / "mix.yaml", tmp_path / "out")) == 2
    said = capsys.readouterr().err
    assert "is 000000 for two files of subset" in said
    assert "ai2d/000000.tar" in said


def test_each_number_has_a_histogram_and_its_ends_by_component(made):
    facts = stats_of(made[1])["facts"]
    assert set(facts) == {"quality", "perplexity"}
    ids = index_of(made[1]).select(pl.col("component").cast(pl.String), "id").rows()
    for fact, of in (("quality", lambda a: a["quality"]["score"]),
                     ("perplexity", lambda a: float(a["perplexity"]))):  # fmt: skip
        about = facts[fact]
        for name in ("instruction", "text", "caption", "interleaved"):
            numbers = sorted((of(annotation("", number_of(i))), i) for c, i in ids if c == name)
            assert about["median"][name] == pytest.approx(np.median([n for n, _ in numbers]))
            inside = np.clip([n for n, _ in numbers], about["edges"][0], about["edges"][-1])
            assert about["components"][name] == np.histogram(inside, about["edges"])[0].tolist()
            told = [(each["value"], each["id"]) for each in about["lowest"][name]]
            assert told == numbers[:TAIL]
            told = [(each["value"], each["id"]) for each in about["highest"][name]]
            assert told == numbers[::-1][:TAIL]
        assert sum(about["counts"]) == len(ids)


def test_the_report_shows_the_ends_with_their_images_and_withholds_what_was_rejected(made):
    folder, mix = made
    page = report(open_finished(str(mix)))
    section = page.partition('<section id="tails">')[2].partition("</section>")[0]
    finished = open_finished(str(mix))
    by = {(about["fact"], about["component"]): about for about in tails(finished)}
    shown = by["quality", "instruction"]
    assert [each["rule"] for each in shown["lowest"]] == ["out_of_bounds"] * TAIL
    assert not any(each["source"] or each["asked"] for each in shown["lowest"])
    for each in shown["highest"]:
        assert each["source"].startswith("data:image/webp")
        assert each["answered"]
        assert each["source"] in section
        assert f'title="{each["id"]}"' in section
    assert "<b>highest " in section
    kept = {(about["fact"], about["component"]): about
            for about in tails(open_finished(str(mix)), work=f"{folder}/out/work")}  # fmt: skip
    assert all(each["source"] for each in kept["quality", "instruction"]["lowest"])
    assert {plot["title"] for plot in stat_plots(finished)} >= {"quality", "perplexity"}


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50)
    | st.lists(st.integers(0, 5).map(float), min_size=1, max_size=50)
)
def test_edges_are_few_rise_and_hold_what_is_not_far_out(values):
    edges = edges_of(np.array(values))
    assert 2 <= len(edges) <= BINS + 3
    assert all(a < b for a, b in pairwise(edges))
    low, high = (np.quantile(values, q) for q in (OUTER, 1 - OUTER))
    assert edges[0] <= low + 1e-9 * abs(low)
    assert high <= edges[-1] + 1e-9 * abs(high)
