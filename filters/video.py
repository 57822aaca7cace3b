"""Rules about videos: from duration, frame times and frame statistics."""

import polars as pl

from filters.facts import evaluated_where
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


@rule(version=2)
def frozen_video(*, max_bits: int = 2) -> pl.Expr:
    """The video stands still: no frame's difference hash is further than `max_bits` (of 64) from
    that of the frame before; where that hash says nothing, the pixels are the same.

    A video of one frame does not fire; see too_few_frames.
    """
    # 2: what re-encoding one and the same frame changes at most; ours, see test_defaults.py.
    frame, pixels = (pl.element().struct.field(name).fill_null(0) for name in ("dhash", "pixels"))
    bits = frame.bitwise_count_ones()
    # a hash of so few bits, or all but so few, is near that of any plain image: pixels decide
    tells = bits.is_between(max_bits + 1, 63 - max_bits)
    near = (frame ^ frame.shift()).bitwise_count_ones() <= max_bits
    still = near & (tells | tells.shift() | (pixels == pixels.shift()))
    stands = pl.col("images").list.eval(still).list.all()
    return evaluated_where(_is_video & (pl.col("num_images") > 1), stands)


@rule()
def black_video(*, max_contrast: float = 2.0, max_share: float = 0.5) -> pl.Expr:
    """More than `max_share` of the frames are black or of another single colour: the deviation of
    luminance, in their copies of 128 px, is below `max_contrast` (0 to 127.5).
    """
    uniform = pl.col("contrasts").list.eval(pl.element() < max_contrast).list.mean()
    return evaluated_where(_is_video, uniform > max_share)


@rule(version=2)
def wrong_duration(*, max_share: float = 0.2) -> pl.Expr:
    """The duration that the file's header states is off by more than `max_share` of the video's
    real one, which is that of its frames' timestamps.

    A file whose header states none does not fire.
    """
    # 0.2: above what a longer sound track, a cut at keyframes or 29.97 for 30 fps make; ours.
    off = (pl.col("header_seconds") - pl.col("duration")).abs()
    return off > max_share * pl.col("duration")
