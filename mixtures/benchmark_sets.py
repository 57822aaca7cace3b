"""Named sets of benchmarks that `benchmarks:` of a mixture keeps out, and where their files lie.

Addresses and MD5 sums are those of VLMEvalKit's own table of TSV files (DATASET_URL, DATASET_MD5
in vlmeval/dataset/image_vqa.py and image_mcq.py, https://github.com/open-compass/VLMEvalKit).
`python -m pipelines hashes smolvlm` makes the hash lists of a set; only hashes are kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass

HOST = "https://opencompass.openxlab.space/utils/VLMEval"


@dataclass(frozen=True)
class Benchmark:
    """A test set: where its questions and images lie."""

    url: str
    """Of VLMEvalKit's TSV; or `hub:ORG/NAME:SPLIT`, a dataset."""
    md5: str = ""
    """Of the TSV; empty: not stated."""


SETS: Mapping[str, Mapping[str, Benchmark]] = {
    # Table 1 of the paper (https://arxiv.org/abs/2504.05299). Of its video benchmarks Video-MME has
    # its questions in one public table; MLVU, MVBench, WorldSense and TempCompass keep them in many
    # files of their own: make lists of those with `hashes NAME data=...`.
    "smolvlm": {
        "OCRBench": Benchmark(f"{HOST}/OCRBench.tsv", "e953d98a987cc6e26ef717b61260b778"),
        "AI2D_TEST": Benchmark(f"{HOST}/AI2D_TEST.tsv", "0f593e0d1c7df9a3d69bf1f947e71975"),
        "ChartQA_TEST": Benchmark(f"{HOST}/ChartQA_TEST.tsv", "c902e0aa9be5582a7aad6dcf52734b42"),
        "TextVQA_VAL": Benchmark(f"{HOST}/TextVQA_VAL.tsv", "b233b31f551bbf4056f2f955da3a92cd"),
        "DocVQA_VAL": Benchmark(f"{HOST}/DocVQA_VAL.tsv", "d5ee77e1926ff10690d469c56b73eabf"),
        "ScienceQA_TEST": Benchmark(
            f"{HOST}/ScienceQA_TEST.tsv", "e42e9e00f9c59a80d8a5db35bc32b71f"
        ),
        "MMMU_DEV_VAL": Benchmark(f"{HOST}/MMMU_DEV_VAL.tsv", "521afc0f3bf341e6654327792781644d"),
        "MathVista_MINI": Benchmark(
            f"{HOST}/MathVista_MINI.tsv", "f199b98e178e5a2a20e7048f5dcb0464"
        ),
        "MMStar": Benchmark(f"{HOST}/MMStar.tsv", "e1ecd2140806c1b1bbf54b43372efb9e"),
        "Video-MME": Benchmark("hub:lmms-lab/Video-MME:test"),
    },
}


def list_path(set_name: str, benchmark: str) -> str:
    """Where the hash list of a benchmark of a set lies."""
    return f"hashes/{set_name}/{benchmark}.parquet"
