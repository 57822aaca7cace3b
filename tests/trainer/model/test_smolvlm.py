"""The loss over a packed micro-batch is that of its samples alone, by `transformers` itself."""

import dataclasses

import pytest
import torch
from torch import nn

from tests.trainer.conftest import SMALL
from tests.trainer.shards import ENCODING, KINDS, pack, sample
from tokenization.schema import PACKED
from tokenization.vocab import load_tokenizer
from trainer import optim, parallel
from trainer.config_file import load
from trainer.data.batches import Batch, collate
from trainer.data.shards import Row
from trainer.model.smolvlm import (
    Objective,
    checkpoint_activations,
    count_parameters,
    encode_crops,
    normalize_pixels,
    random_model,
    use_attention,
)

IMAGE = 49190
TOLERANCE = 1e-6
"""Of float64 models: transformers computes its norms and eager softmax in float32."""
MEANS = ["loop", "sdpa"]
"""Those of CUDA are compared in tests/trainer/test_cuda.py: they take no float64."""


def to_row(row: dict, number: int = 0) -> Row:
    import pyarrow as pa

    batch = pa.RecordBatch.from_pylist([row], schema=PACKED)
    return Row(
        mixture="toy",
        number=number,
        encoding=ENCODING,
        input_ids=batch.column("input_ids")[0].values.to_numpy(),
        loss_mask=batch.column("loss_mask")[0].values.to_numpy(zero_copy_only=False),
        seq_lengths=batch.column("seq_lengths")[0].values.to_numpy(),
        images=[image["bytes"] for image in row["images"]],
        grids=[(g["rows"], g["cols"]) for g in row["grids"]],
        sample_ids=row["sample_ids"],
    )


def batch_of(samples: list[dict]) -> Batch:
    return collate([to_row(row) for row in pack(samples)], image_token=IMAGE)


def objective(
    means: str = "loop",
    *,
    dtype: torch.dtype = torch.float64,
    head_dim: int = 8,
    spread: float = 8,
    **kwargs: object,
) -> Objective:
    """Random weights of 0.02 make all logits alike; `spread` times larger ones let a leak show."""
    config = load("tiny", {**SMALL, "model.language.head_dim": str(head_dim)})
    model = random_model(config.model, load_tokenizer("builtin"), seed=3).to(dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and "embed" not in name:
                parameter.mul_(spread)
    use_attention(model, means)
    settings = {"logits_chunk": 4096, "neftune": 0.0} | kwargs
    return Objective(model, **settings)  # type: ignore[arg-type]


SAMPLES = [sample(i, kind) for i, kind in enumerate((*KINDS, "images"))]


def alone(model: nn.Module, each: dict) -> torch.Tensor:
    """Logits of one sample by transformers' own forward, its own mask, its own attention."""
    batch = batch_of([each])
    pixels = normalize_pixels(batch.pixels, torch.float64) if len(batch.pixels) else None
    return model(
        input_ids=batch.input_ids,
        attention_mask=torch.ones_like(batch.input_ids),
        pixel_values=pixels,
    ).logits[0]


@pytest.mark.parametrize("means", MEANS)
def test_packed_logits_and_gradients_equal_those_of_each_sample_alone(means: str) -> None:
    ours, theirs = objective(means), objective("sdpa")
    theirs.model.set_attn_implementation("sdpa")
    batch = batch_of(SAMPLES)
    packed = ours.model.lm_head(ours.hidden(batch))
    separate = torch.cat([alone(theirs.model, each) for each in SAMPLES])
    assert packed.shape == separate.shape
    assert (packed - separate).abs().max() < TOLERANCE

    total, per_sample = ours(batch)
    total.backward()
    expected = torch.zeros((), dtype=torch.float64)
    for i, each in enumerate(SAMPLES):
        logits = alone(theirs.model, each)
        mask = torch.tensor(each["loss_mask"])[1:]
        targets = torch.tensor(each["input_ids"])[1:]
        loss = nn.functional.cross_entropy(logits[:-1][mask], targets[mask], reduction="sum")
        assert per_sample[i].item() == pytest.approx(loss.item(), rel=TOLERANCE)
        expected = expected + loss
    expected.backward()
    assert total.item() == pytest.approx(expected.item(), rel=TOLERANCE)
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert p.grad is not None, name
        assert (p.grad - q.grad).abs().max() <= TOLERANCE * max(1, q.grad.abs().max()), name


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_gives_the_same_logits() -> None:
    ours, theirs = objective("flex"), objective("loop")
    batch = batch_of(SAMPLES)
    with torch.no_grad():  # PyTorch has no backward pass of it on CPU
        assert (ours.hidden(batch) - theirs.hidden(batch)).abs().max() < TOLERANCE


def test_the_comparison_above_sees_a_leak() -> None:
    model = objective("sdpa").model
    model.set_attn_implementation("sdpa")
    batch = batch_of([SAMPLES[1], SAMPLES[4]])
    leaking = model(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=True)
    separate = torch.cat([alone(model, each) for each in (SAMPLES[1], SAMPLES[4])])
    assert (leaking.logits[0] - separate).abs().max() > 1000 * TOLERANCE


def test_a_sample_does_not_see_its_neighbour() -> None:
    ours = objective("loop")
    first = ours.hidden(batch_of([SAMPLES[1], SAMPLES[4]]))
    second = ours.hidden(batch_of([SAMPLES[0], SAMPLES[4]]))
    tail = len(SAMPLES[4]["input_ids"])
    assert torch.equal(first[-tail:], second[-tail:])


@pytest.mark.parametrize("cuts", [[1] * 6, [2, 4], [5, 1]])
def test_the_loss_is_the_same_however_the_batch_is_cut(cuts: list[int]) -> None:
    whole, parts = objective(), objective()
    batch = batch_of(SAMPLES)
    count = len(batch.targets)
    loss, _ = whole(batch)
    (loss / count).backward()
    total, start, seen = 0.0, 0, 0
    for size in cuts:
        piece = batch_of(SAMPLES[start : start + size])
        loss_piece, _ = parts(piece)
        (loss_piece / count).backward()
        total += loss_piece.item()
        seen += len(piece.targets)
        start += size
    assert seen == count
    assert total == pytest.approx(loss.item(), rel=1e-12)
    for p, q in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_chunks_of_logits_change_nothing(chunk: int) -> None:
    whole, cut = objective(), objective(logits_chunk=chunk)
    batch = batch_of(SAMPLES)
    for each in (whole, cut):
        each(batch)[0].backward()
    for p, q in zip(whole.parameters(), cut.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("towers", ["language", "vision", "both", "none"])
def test_gradient_checkpointing_changes_nothing(towers: str) -> None:
    plain, saving = objective(), objective()
    checkpoint_activations(saving.model, towers)
    inner = saving.model.model
    assert inner.text_model.layers[0].gradient_checkpointing == (towers in ("language", "both"))
    vision = inner.vision_model.encoder.layers[0]
    assert vision.gradient_checkpointing == (towers in ("vision", "both"))
    batch = batch_of(SAMPLES)
    for each in (plain, saving):
        each.train()
        each(batch)[0].backward()
    for p, q in zip(plain.parameters(), saving.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # PyTorch asks for it itself
def test_compiled_layers_change_nothing_and_are_compiled_once_for_all_batches() -> None:
    from torch._dynamo.utils import counters

    plain, compiled = objective(dtype=torch.float32), objective(dtype=torch.float32)
    counters.clear()
    for layer in parallel.layers(compiled):
        layer.compile(dynamic=True, backend="aot_eager")
    graphs = []
    for number in range(6):  # other numbers and lengths of samples, images and none
        kinds = ("image", "text", "image", "text", "images", "text")[: 2 + number % 5]
        batch = batch_of([sample(10 * number + i, kind) for i, kind in enumerate(kinds)])
        for each in (plain, compiled):
            each(batch)[0].backward()
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[1] == graphs[-1] > 0
    for (name, p), q in zip(plain.named_parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, atol=1e-3, rtol=1e-3, msg=name)


def test_every_parameter_has_a_gradient_on_text_alone() -> None:
    ours = objective()
    batch = batch_of([SAMPLES[1], SAMPLES[4]])
    assert len(batch.pixels) == 0
    ours(batch)[0].backward()
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        if "vision_model" in name or "connector" in name:
            assert parameter.grad.abs().max() == 0, name


def test_a_batch_without_learned_tokens_still_gives_gradients_of_zero() -> None:
    ours = objective()
    batch = batch_of(SAMPLES)
    empty = torch.zeros(0, dtype=torch.int64)
    total, per_sample = ours(
        dataclasses.replace(batch, predictors=empty, targets=empty, owners=empty)
    )
    total.backward()
    assert total.item() == 0
    assert per_sample.tolist() == [0.0] * len(SAMPLES)
    assert all(p.grad is not None and p.grad.abs().max() == 0 for p in ours.parameters())


def test_noise_is_added_in_training_only_and_by_the_length_of_each_sample() -> None:
    quiet, noisy = objective(), objective(neftune=5.0)
    batch = batch_of(SAMPLES)
    noisy.eval()
    assert torch.equal(quiet.hidden(batch), noisy.hidden(batch))
    noisy.train()
    torch.manual_seed(0)
    first = noisy(batch)[0].item()
    torch.manual_seed(0)
    assert noisy(batch)[0].item() == first
    assert first != quiet(batch)[0].item()
    caught: list[torch.Tensor] = []
    embeddings = noisy.model.get_input_embeddings()
    handle = embeddings.register_forward_hook(lambda m, i, o: caught.append(o.detach()))
    noisy(batch)
    handle.remove()
    noise = (caught[0] - embeddings.weight[batch.input_ids]).detach()[0].abs()
    lengths = torch.tensor(batch.seq_lengths)
    for piece, length in zip(noise.split(batch.seq_lengths), lengths, strict=True):
        limit = 5.0 / (length * 32) ** 0.5
        assert piece.max() <= limit
        assert piece.max() > 0.9 * limit


@pytest.mark.parametrize("count", [1, 3])
def test_crops_are_encoded_as_transformers_encodes_them(count: int) -> None:
    model = objective().model
    pixels = torch.randint(0, 256, (count, 64, 64, 3), dtype=torch.uint8)
    pixels = normalize_pixels(pixels, torch.float64)
    theirs = model.get_image_features(pixels, return_dict=True).pooler_output
    theirs = torch.cat(
        list(theirs)
    )  # one tensor for all images in transformers 5.18, a tuple since
    torch.testing.assert_close(encode_crops(model.model, pixels[0]), theirs, atol=1e-9, rtol=1e-9)


def test_black_and_white_averages_are_not_taken_for_padding() -> None:
    for value in (0, 127, 128, 255):
        grey = torch.full((1, 64, 64, 3), value, dtype=torch.uint8)
        assert (normalize_pixels(grey, torch.bfloat16) != 0).all()


def test_pixels_are_those_of_transformers_image_processor() -> None:
    from transformers import SmolVLMImageProcessorPil

    from tokenization.images import open_image, processor_settings

    each = SAMPLES[0]
    batch = batch_of([each])
    processor = SmolVLMImageProcessorPil(**processor_settings(ENCODING))
    image = open_image(each["images"][0]["bytes"])
    theirs = processor([[image]], return_tensors="pt")["pixel_values"]
    assert torch.allclose(normalize_pixels(batch.pixels, torch.float32), theirs, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "published"),
    # Parameters that the checkpoints HuggingFaceTB/SmolVLM2-{256M,500M}-Video-Instruct and
    # SmolVLM2-2.2B-Instruct state.
    [("smolvlm_256m", 256_484_928), ("smolvlm_500m", 507_482_304), ("smolvlm_2b2", 2_246_784_880)],
)
def test_sizes_are_the_published_ones(name: str, published: int) -> None:
    from transformers import SmolVLMForConditionalGeneration

    from trainer.model.smolvlm import smolvlm_config

    config = load(name, {})
    with torch.device("meta"):
        model = SmolVLMForConditionalGeneration(
            smolvlm_config(config.model, load_tokenizer("builtin"))
        )
    total = sum(count_parameters(model).values())
    assert abs(total / published - 1) < 0.02
    assert model.model.image_seq_len == config.model.tokens_per_crop


def test_every_parameter_belongs_to_one_group_with_its_towers_rate() -> None:
    config = load("tiny", {**SMALL, "optim.lr.vision": "1", "optim.lr.connector": "2",
                           "optim.lr.language": "3", "optim.weight_decay": "0.5"})  # fmt: skip
    model = random_model(config.model, load_tokenizer("builtin"), seed=0)
    made = optim.optimizer(model, config.optim)
    of = {id(p): g for g in made.param_groups for p in g["params"]}
    assert sum(len(g["params"]) for g in made.param_groups) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        group = of[id(parameter)]
        expected = 1 if "vision_model" in name else 2 if "connector" in name else 3
        assert group["peak"] == expected, name
        assert group["weight_decay"] == (0.5 if parameter.ndim >= 2 else 0), name


def test_frozen_towers_stay() -> None:
    config = load("tiny", {**SMALL, "optim.freeze": "[vision, language]"})
    model = random_model(config.model, load_tokenizer("builtin"), seed=0)
    optim.freeze(model, config.optim.freeze)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained == {"model.connector.modality_projection.proj.weight"}
