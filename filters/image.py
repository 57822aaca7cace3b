"""Rules about images: from sizes and statistics that ingest recorded, never from pixels.

"An image" is any image of the sample, video frames included, except where a rule says stills.
"""

import polars as pl

from filters.rules import rule

_is_still = pl.col("modality") != "video"


@rule()
def small_image(*, min_side: int = 28) -> pl.Expr:
    """An image's shorter side is below `min_side` px."""
    # 28 px: what Qwen2-VL's processor wants at least (two patches of 14). OBELICS kept 150 px and
    # more, https://arxiv.org/abs/2306.16527.
    return pl.col("min_side") < min_side


@rule()
def extreme_aspect(*, max_aspect: float = 200.0) -> pl.Expr:
    """An image's longer side is more than `max_aspect` times its shorter one."""
    # 200: where Qwen2-VL's processor refuses. OBELICS kept 2 and less.
    return pl.col("max_aspect") > max_aspect


@rule()
def huge_image(*, max_pixels: int = 89_478_485) -> pl.Expr:
    """An image has more than `max_pixels` px: a decompression bomb, or a waste of time."""
    # Pillow's Image.MAX_IMAGE_PIXELS: a quarter of a gigabyte of RGB.
    return pl.col("max_pixels") > max_pixels


@rule()
def broken_exif() -> pl.Expr:
    """An image's EXIF is broken, so that it may lie on its side or upside down.

    It was taken as it lies. What cannot be decoded for its EXIF is the defect unreadable_exif.
    """
    return pl.col("any_broken_exif")


@rule()
def uniform_image(*, max_contrast: float = 2.0) -> pl.Expr:
    """A still is nearly uniform, such as a blank page: the deviation of luminance, in its copy of
    128 px, is below `max_contrast` (0 to 127.5).
    """
    # 2: above the grain of scanned paper, below one line of print; ours, see test_defaults.py.
    return _is_still & (pl.col("min_contrast") < max_contrast)


@rule()
def blurred_image(*, min_sharpness: float = 100.0) -> pl.Expr:
    """A still is blurred: the variance of its Laplacian, at thumbnail size, is below
    `min_sharpness`.
    """
    # Pech-Pacheco et al., ICPR 2000, https://doi.org/10.1109/ICPR.2000.903548; 100 is the customary
    # start for photographs. Drawings and pages are low by nature: use `mode: mark` first.
    return _is_still & (pl.col("min_sharpness") < min_sharpness)


@rule()
def text_free_page(*, min_edge_share: float = 0.02) -> pl.Expr:
    """A page holds hardly any text: fewer than `min_edge_share` of its thumbnail lies on an edge.

    For components of documents only; the photograph of a clear sky fires too.
    """
    # 0.02: a page with one line of print has 0.015, with three 0.046; ours, see test_defaults.py.
    return _is_still & (pl.col("min_edges") < min_edge_share)
