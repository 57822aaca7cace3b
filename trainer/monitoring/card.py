"""The model card of a checkpoint: a pure function of what was trained on what."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tokenization.inference import OF_IDS, unsaid
from trainer.config import Config
from trainer.data.shards import Mixture
from trainer.model.smolvlm import count_parameters
from trainer.state import State


def _what_no_file_says(mixtures: list[Mixture]) -> list[str]:
    """What who asks this checkpoint has to know, beside its tokenizer's and processor's files."""
    first = mixtures[0].encoding
    if first.tokenizer != "builtin":
        first = dataclasses.replace(first, tokenizer=str(mixtures[0].folder / "tokenizer"))
    words = list(unsaid(first))
    for mixture in mixtures:
        own = {key: getattr(mixture.encoding, key) for key in OF_IDS}
        others = {mixture.name: {k: v for k, v in own.items() if v != getattr(first, k)}}
        for name, component in mixture.recipe["mixture"].get("components", {}).items():
            others[f"component {name} of {mixture.name}"] = component.get("encoding") or {}
        for name, changes in others.items():
            if changes:
                told = ", ".join(f"{key}: {value}" for key, value in changes.items())
                words.append(f"In training {name} was encoded with {told}.")
    if not words:
        return []
    return ["Prompts as they were trained:", "", *(f"- {each}" for each in words), ""]


def card(config: Config, state: State, mixtures: list[Mixture], model: Any) -> str:
    """README.md of a checkpoint, with the hub's header."""
    # Longer than a screen: reads as the page that it writes.
    counts = count_parameters(model)
    stages = [
        *state.history,
        {"step": state.step, "tokens": state.tokens, "mixtures": state.mixtures},
    ]
    lines = [
        "---",
        *header(config.license, state),
        "---",
        "",
        f"# {config.name} after {state.step} steps",
        "",
        f"A SmolVLM of {sum(counts.values()):,} parameters ("
        + ", ".join(f"{name} {count:,}" for name, count in counts.items())
        + f"), trained on {state.learned_tokens:,} learned tokens of {state.tokens:,} tokens in "
        f"{state.seconds / 3600:.2f} hours.",
        "",
        "## Data",
        "",
    ]
    lines += data_lines(stages, mixtures)
    lines += [
        "",
        "## Measured",
        "",
    ]
    if state.metrics:
        lines += ["| metric | value |", "|---|---|"]
        lines += [f"| {name} | {value:.4f} |" for name, value in sorted(state.metrics.items())]
        lines += ["", f"All of them after step {state.measured_at}, on the weights in this folder."]
    else:
        lines.append("Nothing was measured at this step.")
    lines += [
        "",
        "Held-out numbers are mean losses per learned token (natural logarithm) on the mixtures' "
        "val shards.",
        "",
        "## Use",
        "",
        *_what_no_file_says(mixtures),
        "",
        *use_lines(),
    ]
    return "\n".join(lines)


def data_lines(stages: Sequence[Mapping[str, Any]], mixtures: Sequence[Mixture]) -> list[str]:
    """The stages with their mixtures, and the sources of the last one with their licences."""
    lines = []
    for number, stage in enumerate(stages, 1):
        for used in stage["mixtures"]:
            lines.append(
                f"- Stage {number}, {stage['step']} steps, {stage['tokens']:,} tokens: mixture "
                f"`{used['name']}`, fingerprint `{used['fingerprint']}`, weight {used['weight']:g}"
            )
    lines += ["", "Sources of the last stage, with the licences they state:", ""]
    for mixture in mixtures:
        for component, source in sorted(mixture.recipe.get("sources", {}).items()):
            facts = [str(source[key]) for key in ("hub", "revision") if source.get(key)]
            licence = source.get("licence") or "not stated"
            lines.append(f"- {component}: {' @ '.join(facts) or source.get('source')}; {licence}")
    binds = (
        "A source's licence binds what is made from it: read them before you publish this model."
    )
    return [*lines, "", binds]


def use_lines() -> list[str]:
    """How `transformers` loads the folder."""
    return [
        "```python",
        "from transformers import AutoModelForImageTextToText, AutoProcessor",
        "",
        'model = AutoModelForImageTextToText.from_pretrained("THIS_FOLDER")',
        'processor = AutoProcessor.from_pretrained("THIS_FOLDER")  # needs torchvision',
        "```",
        "",
    ]


def header(license: str, state: State) -> list[str]:
    """What the hub reads of a card: the model's place in its tree, its licence (default: that of
    its base), its data sets.
    """
    lines = ["library_name: transformers", "pipeline_tag: image-text-to-text"]
    if state.base_models:
        lines += ["base_model:", *(f"- {name}" for name in state.base_models)]
        lines.append("base_model_relation: finetune")
    license = license or state.base_license
    lines += [f"license: {license}"] if license else ["license: other", "license_name: not-stated"]
    if state.datasets:
        lines += ["datasets:", *(f"- {name}" for name in state.datasets)]
    return [*lines, "tags: [smolvlm, vision-language]"]
