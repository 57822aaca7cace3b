"""Video-STaR (VSTaR-1M): LLaVA records about videos that the repository does not hold.

Fetch the videos where `elsewhere` says and name their folder with `media:`.
Annotations are `ft_json/NAME_tune_.json`; a subset is one of kinetics700, starb, finediving.
"""

from collections.abc import Mapping
from typing import Any

from pipelines.sources.llava import JSON_FILES, RECORD, record
from pipelines.sources.sample import Sample, source


@source(
    "video_star",
    version=2,
    hub="orrzohar/Video-STaR",
    layout="json",
    licence="Apache-2.0",
    citation="https://arxiv.org/abs/2407.06189",
    verified="ft_json/ with its three files, their sizes, and that no videos lie beside them, on "
    "the repository's file pages; the record is LLaVA's",
    columns=("conversations", "video"),
    also=RECORD,
    files=("ft_json/{subset}_tune_.json", "{subset}_tune_.json", *JSON_FILES),
    subsets={"kinetics700": 1_055_373, "starb": 134_091, "finediving": 3_336},
    elsewhere={
        "kinetics700": "Kinetics-700, https://github.com/cvdfoundation/kinetics-dataset",
        "starb": "Charades, 480p, https://prior.allenai.org/projects/charades",
        "finediving": "on request, https://github.com/xujinglin/FineDiving",
    },
    rows_per_part=128,
)
def video_star(row: Mapping[str, Any]) -> Sample:
    """Questions about one video."""
    return record(row)
