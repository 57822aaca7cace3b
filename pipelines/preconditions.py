"""What a build needs besides its data, known before the first part is read.

| needed                                           | asked for by                              |
|--------------------------------------------------|-------------------------------------------|
| the tokenizer, and every setting of the encoding | making the tools that encode with them    |
| models and hash lists of the rules               | judging no samples with them              |
| the fields of annotations                        | the first lines of one file of a subset   |
| that `output` and `work` can be written          | writing a small file there, and taking it |
|                                                  | away                                      |

Each that is not there is one ValueError that says where, what, and the way out.
"""

import uuid
from collections.abc import Callable

import filters
from mixtures.config import Mixture, annotated_facts, encoding_of
from pipelines.engine import ownership, tables
from pipelines.reading.joining import FactFiles, check_fields, with_absent
from pipelines.survey import Place, Survey, checked_rules
from tokenization.encode import encoding_tools
from tokenization.schema import SAMPLE


def require_all(mixture: Mixture, place: Place) -> None:
    """Everything that the parts of a build will need is there.

    Raises:
        ValueError: something is not.
        FileNotFoundError: no such tokenizer, model or list.
    """
    for name in mixture.components:
        try:
            encoding_tools(encoding_of(mixture, name))
        except (ValueError, FileNotFoundError):
            raise
        except Exception as error:  # what the tokenizer's own readers raise for a damaged file
            tokenizer = mixture.encoding.tokenizer
            raise ValueError(
                f"encoding.tokenizer: {tokenizer!r} cannot be read ({short(error)}). Expected "
                "`builtin`, a folder with tokenizer.json, or a hub id that can be reached."
            ) from error
        require_models(mixture, name)
    require_writable(place.output, key="output", claim=ownership.claim_output)
    require_writable(place.work, key="work", claim=ownership.claim_work)


def require_models(mixture: Mixture, name: str) -> None:
    """Models and lists of the component's rules load; raises ValueError where one does not."""
    rules = checked_rules(mixture, name)
    nothing = with_absent(SAMPLE.empty_table(), annotated_facts(mixture))
    try:
        filters.judge(nothing, rules=rules, weight_by=mixture.weight_by)
    except (ValueError, OSError):
        raise
    except Exception as error:  # what onnxruntime and tokenizers raise for a damaged file
        models = [
            f"{rule}.{key}={value}"
            for rule, settings in rules.items()
            for key, value in settings.items()
            if key.endswith("model") or key == "tokenizer"
        ]
        raise ValueError(
            f"components.{name}.filters: a model cannot be read ({short(error)}); one of "
            f"{', '.join(models) or ', '.join(rules)}."
        ) from error


def require_fields(todo: Survey, mixture: Mixture) -> None:
    """The fields of annotations are in their files; raises ValueError as `check_fields` does."""
    first: dict[tuple[str, str], tuple[str, FactFiles]] = {}
    for p in todo.pieces:
        if p.facts is not None and p.facts.fields:
            own = mixture.components[p.component].annotations is not None
            at = f"components.{p.component}.annotations" if own else "annotations"
            first.setdefault((p.component, p.part.subset), (f"{mixture.name}: {at}", p.facts))
    check_fields(list(first.values()))


def require_writable(folder: str, *, key: str, claim: Callable[[str], None]) -> None:
    """The folder is ours, and files can be put into it; raises ValueError where that is not so."""
    path = tables.join(folder, f".writable.{uuid.uuid4().hex[:8]}.tmp")
    try:
        claim(folder)
        tables.write_text(path, "")
        tables.remove(path)
    except ValueError:
        raise
    except Exception as error:  # stores have exceptions of their own
        raise ValueError(
            f"{key}={folder}: cannot be written ({short(error)}). Name another folder: {key}=DIR"
        ) from error


def short(error: Exception) -> str:
    """The error's kind and first line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"
