"""vLLM answers chat requests, in this process or in a worker of Ray: the one file that knows it.

Requests are those of the chat endpoint, which `LLM.chat` takes as they are; the schema goes along
as structured outputs: https://docs.vllm.ai/en/latest/api/vllm/entrypoints/llm.html
"""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from pipelines.served.batches import Answering
from pipelines.served.endpoint import NotTaken, Reply


def require_vllm() -> None:
    """Raises ValueError where vLLM is not installed."""
    if find_spec("vllm") is None:
        raise ValueError(
            "engine=vllm: vllm is not installed here\nway out: pip install vllm on a machine with "
            "a GPU (on every node of a Ray cluster), or serve the model and name endpoint=URL"
        )


def loaded(model: str, *, max_images: int) -> Answering:
    """The model on the GPU that this process has."""
    require_vllm()
    from vllm import LLM

    engine = LLM(model=model, limit_mm_per_prompt={"image": max_images})

    def answer(requests: list[Mapping[str, Any]]) -> list[Reply | NotTaken]:
        try:
            return said(engine, requests)
        except ValueError as error:  # of one that the model cannot take: which, only it tells
            if len(requests) > 1:
                return [one for request in requests for one in answer([request])]
            return [NotTaken(status=400, message=str(error)[:300])]

    return answer


def said(engine: Any, requests: list[Mapping[str, Any]]) -> list[Reply | NotTaken]:
    """What the model says to each request."""
    found = engine.chat(
        [request["messages"] for request in requests],
        sampling_params=[sampling_of(request) for request in requests],
        use_tqdm=False,
    )
    return [
        Reply(
            text=one.outputs[0].text,
            finish=str(one.outputs[0].finish_reason or ""),
            input_tokens=len(one.prompt_token_ids or ()),
            output_tokens=len(one.outputs[0].token_ids),
        )
        for one in found
    ]


def sampling_of(request: Mapping[str, Any]) -> Any:
    """The request's settings in vLLM's terms."""
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    settings: dict[str, Any] = {
        "temperature": request["temperature"],
        "max_tokens": request["max_tokens"],
    }
    if "response_format" in request:
        schema = request["response_format"]["json_schema"]["schema"]
        settings["structured_outputs"] = StructuredOutputsParams(json=schema)
    return SamplingParams(**settings)
