"""Text corpora of the hub for pretraining stages: each row is one raw document.

| source          | column    | a subset is                                                       |
|-----------------|-----------|-------------------------------------------------------------------|
| fineweb_edu     | `text`    | `sample/NAME/`: 10BT, 100BT, 350BT; `CC-MAIN-...`: one crawl      |
| dclm            | `text`    | `one_shard` (1 of 100 local shards), or a path of folders         |
| finemath        | `text`    | finemath-3plus, finemath-4plus, infiwebmath-3plus, ...            |
| open_web_math   | `text`    | the whole                                                         |
| smollm_corpus   | `text`    | cosmopedia-v2, fineweb-edu-dedup (python-edu holds ids alone)     |
| dolma_books     | `text`    | the whole: Project Gutenberg as Dolma 1.7 has it                  |
| the_stack       | `content` | a programming language: python, java, c, ...                      |
| starcoderdata   | `content` | likewise                                                          |
| stack_edu       | `text`    | a language; the repository holds ids of blobs, not their text     |

None is read whole for a few thousand million tokens: `max_samples` (or `keep`) of a subset takes
that many rows' row groups and no more.
"""

from collections.abc import Mapping
from typing import Any

from pipelines.sources.documents import documents
from pipelines.sources.sample import PARQUET_FILES, Sample, source

ROWS_PER_PART = 20_000
DCLM_ROOT = (
    "filtered/OH_eli5_vs_rw_v2_bigram_200k_train/"
    "fasttext_openhermes_reddit_eli5_vs_rw_v2_bigram_200k_train/processed_data"
)


@source(
    "fineweb_edu",
    hub="HuggingFaceFW/fineweb-edu",
    layout="text",
    licence="ODC-By-1.0",
    citation="https://arxiv.org/abs/2406.17557",
    verified="`text` and the configs sample-10BT, sample-100BT, sample-350BT and CC-MAIN-... on "
    "the card; sample/10BT/000_00000.parquet in published code that fetches it",
    columns=("text",),
    files=("sample/{subset}/*.parquet", "data/{subset}/*.parquet", *PARQUET_FILES),
    subsets={"10BT": 9_670_000, "100BT": 0, "350BT": 0},
    default=("10BT",),
    rows_per_part=ROWS_PER_PART,
)
def fineweb_edu(row: Mapping[str, Any]) -> Sample:
    """A page of educational web text."""
    return documents(row)


@source(
    "dclm",
    hub="mlfoundations/dclm-baseline-1.0-parquet",
    layout="text",
    licence="CC-BY-4.0",
    citation="https://arxiv.org/abs/2406.11794",
    verified="`text`, and global-shard_NN_of_10/local-shard_N_of_10 with their Parquet, in "
    "published code that fetches them",
    columns=("text",),
    files=(f"{DCLM_ROOT}/global-shard_01_of_10/local-shard_0_of_10/*.parquet", *PARQUET_FILES),
    whole_name="one_shard",
    subsets={"one_shard": 30_000_000},
    rows_per_part=ROWS_PER_PART,
)
def dclm(row: Mapping[str, Any]) -> Sample:
    """A page of web text chosen by a classifier."""
    return documents(row)


@source(
    "finemath",
    hub="HuggingFaceTB/finemath",
    layout="text",
    licence="ODC-By-1.0",
    citation="https://arxiv.org/abs/2502.02737",
    verified="`text`, the four configs and their rows on the card",
    columns=("text",),
    subsets={
        "finemath-3plus": 21_400_000,
        "finemath-4plus": 6_700_000,
        "infiwebmath-3plus": 13_900_000,
        "infiwebmath-4plus": 6_300_000,
    },
    default=("finemath-3plus",),
    rows_per_part=ROWS_PER_PART,
)
def finemath(row: Mapping[str, Any]) -> Sample:
    """A page of mathematics."""
    return documents(row)


@source(
    "open_web_math",
    hub="open-web-math/open-web-math",
    layout="text",
    licence="ODC-By-1.0",
    citation="https://arxiv.org/abs/2310.06786",
    verified="`text` and the rows on the card",
    columns=("text",),
    subsets={"default": 6_315_233},
    rows_per_part=ROWS_PER_PART,
)
def open_web_math(row: Mapping[str, Any]) -> Sample:
    """A page of mathematics."""
    return documents(row)


@source(
    "smollm_corpus",
    hub="HuggingFaceTB/smollm-corpus",
    layout="text",
    licence="ODC-By-1.0",
    citation="https://huggingface.co/blog/smollm",
    verified="configs, `text` and rows on the card",
    columns=("text",),
    subsets={"cosmopedia-v2": 39_134_000, "fineweb-edu-dedup": 190_168_005},
    notes=("its python-edu holds ids of blobs and no text",),
    rows_per_part=ROWS_PER_PART,
)
def smollm_corpus(row: Mapping[str, Any]) -> Sample:
    """A synthetic textbook's page, or a page of educational web text."""
    return documents(row)


@source(
    "dolma_books",
    hub="emozilla/dolma-v1_7-books",
    layout="text",
    licence="ODC-By-1.0",
    citation="https://arxiv.org/abs/2402.00159",
    verified="the repository and its one config in published code that streams it; `text` there. "
    "allenai/dolma itself holds addresses of files, not texts",
    columns=("text",),
    subsets={"default": 52_000},
    rows_per_part=500,
)
def dolma_books(row: Mapping[str, Any]) -> Sample:
    """A book of Project Gutenberg."""
    return documents(row)


@source(
    "the_stack",
    hub="bigcode/the-stack-dedup",
    layout="text",
    licence="each file's own",
    terms=("per-file-licences", "honour-removals"),
    gating="accept its terms on the repository's page",
    citation="https://arxiv.org/abs/2211.15533",
    verified="data/LANGUAGE/*.parquet and `content` in published code that reads them",
    columns=("content",),
    media_columns=(),
    files=("data/{subset}/*.parquet", *PARQUET_FILES),
    rows_per_part=ROWS_PER_PART,
)
def the_stack(row: Mapping[str, Any]) -> Sample:
    """A source file."""
    return documents(row)


@source(
    "starcoderdata",
    hub="bigcode/starcoderdata",
    layout="text",
    licence="each file's own",
    terms=("per-file-licences", "honour-removals"),
    gating="accept its terms on the repository's page",
    citation="https://arxiv.org/abs/2305.06161",
    verified="LANGUAGE/train-*.parquet and `content` on the card",
    columns=("content",),
    rows_per_part=ROWS_PER_PART,
)
def starcoderdata(row: Mapping[str, Any]) -> Sample:
    """A source file, an issue, a commit or a notebook."""
    return documents(row)


@source(
    "stack_edu",
    hub="HuggingFaceTB/stack-edu",
    layout="text",
    licence="each file's own",
    terms=("per-file-licences", "honour-removals"),
    citation="https://arxiv.org/abs/2502.02737",
    verified="configs by language and `blob_id` on the card; that the texts lie in Software "
    "Heritage's public bucket under that id on the card of The Stack v2",
    columns=("text|content",),
    elsewhere={
        "": "its rows name blobs: fetch s3://softwareheritage/content/BLOB_ID (gzip, in the row's "
        "src_encoding; open to all) into Parquet or JSON lines with `text`",
    },
    rows_per_part=ROWS_PER_PART,
)
def stack_edu(row: Mapping[str, Any]) -> Sample:
    """A source file of educational value."""
    return documents(row)


@source(
    "codeparrot_clean",
    hub="codeparrot/codeparrot-clean",
    layout="text",
    licence="each file's own",
    terms=("per-file-licences",),
    citation="https://huggingface.co/datasets/codeparrot/codeparrot-clean",
    verified="file-000000000001.json.gz to -054 and `content` in published code that streams it",
    columns=("content",),
    files=("file-*.json.gz", "*.json.gz"),
    subsets={"default": 5_361_373},
    rows_per_part=ROWS_PER_PART,
)
def codeparrot_clean(row: Mapping[str, Any]) -> Sample:
    """A Python file of GitHub."""
    return documents(row)
