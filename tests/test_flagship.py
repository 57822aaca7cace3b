"""The flagship, end to end, on a mirror laid out as the hub is, with leaks planted."""

import base64

import polars as pl
import pytest

from mixtures.mixture_file import load
from pipelines.__main__ import main
from pipelines.engine import tables
from tests.building import build
from tests.laid_out import hash_of, image, lay_out, sentence
from tokenization.schema import Encoding


@pytest.mark.slow
def test_the_flagship_is_built_without_what_is_nowhere_and_finds_what_leaked(
    tmp_path, monkeypatch, capsys
):
    mirror = lay_out(tmp_path / "mirror", load("sft_v2", encoding=Encoding), rows=6)
    planted = {
        "MMStar": [(image(hash_of("chartqa") + 2 * n), "Unlike any?") for n in (1, 3)],
        "OCRBench": [(image(9000 + n), "") for n in (2, 4)],  # MathWriting's
        "MMMU_DEV_VAL": [(image(1), sentence(hash_of("mathqa") + n)) for n in (0, 5)],
    }
    for name, rows in planted.items():
        lines = [
            f"{n}\t{base64.b64encode(data).decode()}\t{question}"
            for n, (data, question) in enumerate(rows)
        ]
        (tmp_path / f"{name}.tsv").write_text("\n".join(["index\timage\tquestion", *lines]) + "\n")
    monkeypatch.chdir(tmp_path)
    main(["hashes", "smolvlm", f"data={tmp_path}"])
    small = ["encoding.seq_len=2048", "encoding.longest_edge=512", "tokens=max"]
    mix = build("sft_v2", tmp_path, f"data={mirror}", *small)
    told = capsys.readouterr().out
    assert "video_star (optional, 1 %) is left out" in told
    index = pl.DataFrame(tables.read(mix / "index.arrow"))
    leaked = set(index.filter(pl.col("fired").list.contains("contaminated"))["id"])
    assert leaked == {
        *(f"cauldron/chartqa/{n:06d}" for n in (1, 3)),
        *(f"mathwriting/default/{n:06d}" for n in (2, 4)),
        *(f"llava_onevision/mathqa/{n:06d}" for n in (0, 5)),
    }
    card = (mix / "README.md").read_text()
    for name in ("MMStar", "OCRBench", "MMMU\\_DEV\\_VAL"):
        assert f"| {name} | 2 | 2 |" in card
    assert "Not checked, for want of a hash list: AI2D" in card
    assert "Videos last" in card
    assert index["rule"].is_in(["limit_cot"]).any(), "MAmmoTH's untagged chains of thought"
