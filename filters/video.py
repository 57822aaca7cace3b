"""Rules about videos: from duration, frame times and frame statistics."""

import polars as pl

from filters.rules import rule

_is_video = pl.col("modality") == "video"


@rule()
def too_short(*, min_seconds: float) -> pl.Expr:
    """The video lasts less than `min_seconds`."""
    return pl.col("duration") < min_seconds


@rule()
def too_long_video(*, max_seconds: float) -> pl.Expr:
    """The video lasts longer than `max_seconds`."""
    return pl.col("duration") > max_seconds


@rule()
def too_few_frames(*, min_frames: int) -> pl.Expr:
    """The video gave fewer than `min_frames` frames."""
    return _is_video & (pl.col("num_images") < min_frames)
