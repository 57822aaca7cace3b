"""A run is seen on one page: its curves, and what it says to val samples."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.html_page import Page
from tests.trainer.conftest import Settings
from tests.trainer.shards import COLOURS, ENCODING, pack, png, sample, write
from tokenization.images import crop_pixels as crops
from tokenization.images import open_image
from tokenization.vocab import load_tokenizer
from trainer.config import Config
from trainer.data.shards import open_mixture
from trainer.evaluation import generations
from trainer.evaluation.answer import Prompt
from trainer.evaluation.generations import ShownSample, choose_samples
from trainer.loop import train
from trainer.monitoring.page import (
    CHARACTERS,
    POINTS,
    downsample,
    page,
    short_prompt,
    spread,
    versions,
    visible_text,
)

HOSTILE = (
    "<script>document.title='owned'</script>\"'><img src=x onerror=alert(1)> {{ 7*7 }}\u202e\x1b["
)


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def answered(run: Path) -> dict[int, dict[str, str]]:
    return {line["step"]: line["said"] for line in lines(run) if "said" in line}


def refuse_network(html: str) -> None:
    for tag, attributes in Page(html).elements:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "srcset"):
            assert attributes.get(name, "#").startswith(("#", "data:image/webp;base64,"))
    assert not re.search(r"url\((?!#)|@import", html)
    assert "default-src 'none'" in html


def test_a_run_writes_its_page_and_goes_on_writing_it(settings: Settings) -> None:
    changes = {"save_every": 2, "evaluate_every": 2, "page_samples": 3}
    stopped = settings(steps=4, stop_at=2, **changes)
    run = train(stopped).parent
    first = (run / "run.html").read_text()
    assert "Step 2 of 4" in " ".join(Page(first).words)
    train(settings(steps=4, **changes))
    html = (run / "run.html").read_text()
    assert sorted(answered(run)) == [2, 4]
    assert len(answered(run)[2]) == 3
    assert list(answered(run)[2]) == list(answered(run)[4])
    found = Page(html)
    assert found.open == []
    refuse_network(html)
    text = " ".join(" ".join(found.words).split())
    for part in ("Step 4 of 4", "toy (toy-0123456789abcdef)", "images", "words", "step 2"):
        assert part in text
    for words in answered(run)[4].values():
        assert " ".join(words.split()) in text
    labels = [a.get("aria-label") for tag, a in found.elements if tag == "svg"]
    assert labels == ["Loss over all", "Loss per component", "Learning rate", "Throughput",
                      "Norm of the gradient"]  # fmt: skip
    assert len([tag for tag, _ in found.elements if tag == "img"]) >= 2


def test_looking_changes_no_number(settings: Settings, tmp_path: Path) -> None:
    runs = [
        train(settings(steps=4, save_every=1, page_samples=n, output=tmp_path / str(n))).parent
        for n in (0, 2)
    ]
    curves = [[line["loss"] for line in lines(run) if "loss" in line] for run in runs]
    assert curves[0] == curves[1]
    assert not (runs[0] / "run.html").exists()
    assert (runs[1] / "run.html").exists()
    weights = [(run / "step-000004" / "model.safetensors").read_bytes() for run in runs]
    assert weights[0] == weights[1]


def greedy(model: Any, tokenizer: Any, shown: ShownSample) -> str:
    """What `transformers` finds most probable next, by whole forward passes without a cache."""
    ids = torch.from_numpy(shown.prompt.ids)[None]
    given = {}
    if shown.images:
        grids = shown.prompt.grids
        cut = [crops(b, *g, encoding=ENCODING) for b, g in zip(shown.images, grids, strict=True)]
        pixels = torch.from_numpy(np.concatenate(cut)).permute(0, 3, 1, 2).float()
        given["pixel_values"] = (pixels / 255 - 0.5)[None] / 0.5
    length = ids.shape[1]
    for _ in range(generations.NEW_TOKENS):
        with torch.no_grad():
            best = model(input_ids=ids, logits_to_keep=1, **given).logits[0, -1].argmax()
        ids = torch.cat([ids, best.view(1, 1)], 1)
        if int(best) == tokenizer.eos_token_id:
            break
    return tokenizer.decode(ids[0, length:], skip_special_tokens=True).strip()


def test_what_is_shown_is_what_the_checkpoint_says(
    settings: Settings, mixture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForImageTextToText

    monkeypatch.setattr(generations, "NEW_TOKENS", 6)
    # Hardly trained, it still says many words.
    folder = train(settings(steps=1, batch_rows=2, evaluate_rows=1, page_samples=3))
    tokenizer = load_tokenizer("builtin")
    shown = choose_samples([open_mixture(str(mixture))], tokenizer, count=3)
    (words,) = answered(folder.parent).values()
    model = AutoModelForImageTextToText.from_pretrained(str(folder), dtype=torch.float32).eval()
    assert words == {each.id: greedy(model, tokenizer, each) for each in shown}
    assert len(set(words.values())) > 1


def test_samples_alternate_over_components_and_keep_their_own_image(mixture: Path) -> None:
    shown = choose_samples([open_mixture(str(mixture))], load_tokenizer("builtin"), count=8)
    assert [each.modality for each in shown][:3] == ["image", "text", "multi_image"]
    assert {each.component for each in shown} == {"images", "words"}
    assert len({each.id for each in shown}) == len(shown)
    for each in shown:
        if not each.images:
            assert re.search(r"What comes after (\d+)", each.question)
            continue
        assert each.question.count("[image]") == len(each.images)
        assert "<image>" not in each.question
        for name, data in zip(each.expected.split(" and "), each.images, strict=True):
            mean = np.asarray(open_image(data)).mean((0, 1))
            nearest = min(COLOURS, key=lambda c: np.abs(mean - 7 - np.array(COLOURS[c])).sum())
            assert nearest == name


def test_samples_that_answer_before_they_are_asked_are_not_chosen(tmp_path: Path) -> None:
    text, image_record = sample(0, "text"), sample(1, "image")
    text["loss_mask"] = [True] * len(text["loss_mask"])
    image_record["loss_mask"][2] = True  # before the image
    mixture = open_mixture(str(write(tmp_path / "m", pack([text]), val=pack([text, image_record]))))
    assert choose_samples([mixture], load_tokenizer("builtin"), count=4) == []


def test_without_val_rows_the_page_holds_the_curves(settings: Settings, tmp_path: Path) -> None:
    texts = write(tmp_path / "m", pack([sample(i, "text") for i in range(20)]))
    run = train(settings(steps=2, data=texts, page_samples=2)).parent
    html = (run / "run.html").read_text()
    assert "Loss per component" in html
    assert "What it says" not in html


def line(step: int, **changes: object) -> dict:
    return {
        "step": step, "loss": 1.0, "mean_loss": 1.0, "gradient_norm": 1.0, "lr": {"vision": 1e-5},
        "tokens": 10 * step, "learned_tokens": step, "tokens_per_second": 5.0,
        "learned_tokens_per_second": 1.0, "data_wait": 0.0, "losses": {}, **changes,
    }  # fmt: skip


def test_hostile_text_is_text_and_nothing_else() -> None:
    prompt = Prompt(np.array([1, 2]), [(0, 0)])
    shown = ShownSample(
        HOSTILE, HOSTILE, HOSTILE, HOSTILE, [png((9, 9, 9), 30, 20, 0)], prompt, ENCODING
    )
    log = [
        line(1, losses={f"component/{HOSTILE}": 2.0}),
        line(2, losses={f"component/{HOSTILE}": 1.0}),
        {"step": 2, "held_out": {"all": 1.0, f"component/{HOSTILE}": 1.5}},
        {"step": 2, "said": {HOSTILE: HOSTILE}},
    ]
    html = page(Config(name=HOSTILE), log, [shown], steps=2, mixtures=[HOSTILE])
    refuse_network(html)
    assert Page(html).open == []
    assert "".join(Page(html).words).count("<script>document.title='owned'</script>") >= 6
    assert "{{ 7*7 }}\\u202e\\u001b[" in "".join(Page(html).words)
    assert not set(html) & set("\x1b\x07\u202e")


def test_components_that_come_and_go_are_drawn() -> None:
    log = [line(k, losses={f"component/{k % 12:02d}": 3.0 - k / 100}) for k in range(1, 300)]
    html = page(Config(name="many"), log, [], steps=300, mixtures=["m"])
    assert html.partition("Settings and versions")[0].count('scope="row"') == 13
    assert len(html) < 300_000


def test_a_component_has_the_colour_that_its_mixtures_report_gives_it() -> None:
    """By its place in the mixture, whatever the order of its name and whoever lacks a loss."""
    log = [line(k, losses={"component/b": 2.0, "component/a": 1.0}) for k in (1, 2)]
    html = page(Config(name="run"), log, [], steps=2, mixtures=["m"], orders=[["c", "b", "a"]])
    for name, colour in {"b": 1, "a": 2}.items():
        assert re.search(rf'border-color:var\(--c{colour}\)"></i>{name}<', html)
    assert 'style="border-color:var(--c0)' not in html


def test_held_out_losses_stand_beside_those_of_training() -> None:
    log = [line(k, losses={"component/a": 2.0 - k / 4}) for k in (1, 2)]
    log += [{"step": k, "held_out": {"all": 4.0 + k, "component/a": 6.0 + k}} for k in (1, 2)]
    html = page(Config(name="run"), log, [], steps=2, mixtures=["m"])
    rows = re.findall(r'<tr><th scope="row">.*?</tr>', html.partition('<div class="plots')[0])
    numbers = [re.findall(r'class="n">([^<]*)<', row) for row in rows]
    assert numbers == [["1.000", "1.000", "5.000", "6.000"], ["1.750", "1.500", "7.000", "8.000"]]


def test_settings_versions_and_units_are_stated() -> None:
    config = Config(name="run", batch_rows=3, data={"out/m": 1.0})
    log = [line(k, losses={"component/a": 1.0}) for k in (1, 2)]
    html = page(config, log, [], steps=2, mixtures=["m"], versions=versions("a CPU"))
    changed, _, rest = html.partition("Settings and versions")[2].partition("<details>")
    for part in ("<code>batch_rows</code></th><td><code>3<", "<code>data.out/m</code>", "a CPU",
                 f"torch {torch.__version__}"):  # fmt: skip
        assert part in changed
    assert "<code>optim.lr.vision</code>" in rest
    labels = "".join(Page(html).words)
    assert labels.count("nats per learned token") == 2
    for unit in ("tokens per second", "step size of AdamW", "nats per unit of weight"):
        assert unit in labels


def test_a_run_without_a_logged_line_says_so() -> None:
    assert "Nothing is logged yet" in page(Config(name="new"), [], [], steps=1, mixtures=["m"])


def test_of_a_long_video_the_question_is_seen() -> None:
    frames = "".join(f"\nFrame from {k // 60:02d}:{k % 60:02d}:[image]" for k in range(64))
    shown = short_prompt(f"User: A video.\n{frames}\nWhat moves?<end_of_utterance>")
    assert shown == (
        "User: A video.\n\nFrame from 00:00:[image]\n[... 62 frames more]"
        "\nFrame from 01:03:[image]\nWhat moves?<end_of_utterance>"
    )
    few = "\nFrame from 00:00:[image]" * 3
    assert short_prompt(few) == few


def test_of_a_long_prompt_both_ends_are_seen() -> None:
    shown = short_prompt("a" * 3000 + "b" * 3000)
    assert len(shown) <= CHARACTERS
    left_out = int(re.search(r"\[\.\.\. ([\d,]+) characters more\]", shown)[1].replace(",", ""))
    assert shown.count("a") - 2 + shown.count("b") + left_out == 6000, "two of the mark itself"


def test_equal_learning_rates_are_one_curve_and_components_have_their_mixtures_order() -> None:
    losses = {"component/a": 1.0, "component/b": 2.0}
    rates = {"vision": 1e-5, "connector": 1e-4, "language": 1e-5}
    log = [line(k, losses=losses, lr=rates) for k in (1, 2)]
    html = page(Config(name="run"), log, [], steps=2, mixtures=["m"], orders=[["b", "a"]])
    legends = re.findall(r'<div class="legend">(.*?)</div>', html)
    names = [re.findall(r"</i>([^<]*)<", legend) for legend in legends]
    assert names[1:3] == [["b", "a"], ["vision, language", "connector"]]
    assert html.index("</i>b<") < html.index("</i>a<")


def test_long_text_is_shortened_and_says_by_how_much() -> None:
    assert visible_text("a" * CHARACTERS) == "a" * CHARACTERS
    assert visible_text("a" * (CHARACTERS + 5)) == "a" * CHARACTERS + " ... (5 characters more)"
    assert visible_text("\u202e" * 3) == "\\u202e" * 3


@given(st.lists(st.floats(-1e3, 1e3), max_size=3 * POINTS))
def test_averaging_keeps_the_order_and_the_range(values: list[float]) -> None:
    x, y = downsample(list(range(len(values))), values)
    assert len(x) == len(y) == min(len(values), POINTS)
    assert x == sorted(x)
    if values:
        assert min(values) - 1e-6 <= min(y) <= max(y) <= max(values) + 1e-6
    if len(values) <= POINTS:
        assert y == values


@pytest.mark.parametrize(
    ("count", "expected"), [(3, [0, 1, 2]), (4, [0, 1, 2, 3]), (10, [0, 3, 6, 9])]
)
def test_spread_keeps_both_ends(count: int, expected: list[int]) -> None:
    assert spread(list(range(count)), 4) == expected
