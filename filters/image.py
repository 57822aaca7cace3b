"""Rules about pictures: from sizes and statistics that ingest recorded, never from pixels.

"A picture" is any picture of the sample, video frames included, except where a rule says stills.
"""

import polars as pl

from filters.rules import rule


@rule()
def small_image(*, min_side: int = 28) -> pl.Expr:
    """A picture's shorter side is below `min_side` px."""
    # 28 px: what Qwen2-VL's processor wants at least (two patches of 14). OBELICS kept 150 px and
    # more, https://arxiv.org/abs/2306.16527.
    return pl.col("min_side") < min_side


@rule()
def extreme_aspect(*, max_aspect: float = 200.0) -> pl.Expr:
    """A picture's longer side is more than `max_aspect` times its shorter one."""
    # 200: where Qwen2-VL's processor refuses. OBELICS kept 2 and less.
    return pl.col("max_aspect") > max_aspect


@rule()
def huge_image(*, max_pixels: int = 89_478_485) -> pl.Expr:
    """A picture has more than `max_pixels` px: a decompression bomb, or a waste of time."""
    # Pillow's Image.MAX_IMAGE_PIXELS: a quarter of a gigabyte of RGB.
    return pl.col("max_pixels") > max_pixels
