"""The list of a benchmark, made by the command, keeps its items out of a mixture."""

import base64

import polars as pl

from pipelines.__main__ import main
from pipelines.engine import tables
from tests.repositories import image_record


def test_a_benchmark_named_in_a_mixture_is_kept_out(world, mix, tmp_path, capsys):
    rows = [
        (
            str(i),
            base64.b64encode(image_record(seed, 64 + seed % 5 * 24, 64)).decode(),
            "Unlike any?",
        )
        for i, seed in enumerate((20, 21))
    ]
    lines = ["index\timage\tquestion", *("\t".join(row) for row in rows)]
    (tmp_path / "bench.tsv").write_text("\n".join(lines) + "\n")
    made = f"{tmp_path}/bench.parquet"
    assert main(["hashes", "bench", f"data={tmp_path}/bench.tsv", f"output={made}"]) == 0
    assert "items 2" in capsys.readouterr().out
    words = [f"mixture={world}", f"output={tmp_path}/mix", f"work={mix}/../work", "workers=0"]
    assert main(["build", *words, f"benchmarks=[{made}]"]) == 0
    index = pl.DataFrame(tables.read(tmp_path / "mix" / "index.arrow"))
    hit = index.filter(rule="contaminated")
    assert hit["id"].to_list() == ["cauldron/ai2d/000020", "cauldron/ai2d/000021"]
    main(["show", f"{tmp_path}/mix", "rule=contaminated", f"work={mix}/../work"])
    assert "bench" in capsys.readouterr().out


def test_a_list_that_is_not_there_is_said(world, tmp_path, capsys):
    words = [f"mixture={world}", f"output={tmp_path}/mix", f"work={tmp_path}/w", "workers=0"]
    assert main(["build", *words, "benchmarks=[nothing]"]) == 2
    assert "hashes/nothing.parquet" in capsys.readouterr().err
