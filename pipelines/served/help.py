"""The help of `judge` and `rewrite`, which needs nothing of what they need."""

ASKED = """\
  plan=true        requests, tokens and cost of what is left to ask; asks nothing
  engine=endpoint  or one that runs model=FOLDER|HUB_ID: transformers (small models), vllm;
                   ray=auto: in a worker on each gpus=1 of the cluster
  api_key=NAME     the environment variable that holds the key
  component=NAME   of it alone
  max_requests=N   in all runs with this prompt, model and settings; max_tokens=N: the same
  concurrency=8    requests under way; per_minute=N: begun in a minute, at most
  timeout=120      s for an answer; retries=5, pause=1: s before the second try, then doubled
  max_edge=1024    px; larger images are sent smaller; max_images=8: of more, evenly spaced ones
  structured=true  send the JSON schema as response_format; temperature=0
  input_price=P    for a million tokens; output_price=P; image_tokens=1000: expected of an image
  again=true       ask again what got a bad verdict
  work=DIR         where the build kept its samples (default: out/work); answers=DIR: where answers
                   are kept (default: in work)
"""
FACTS = (
    "  output=FILE      the facts                  (default: out/judged/MIXTURE-PROMPT.parquet)\n"
)
WRITTEN = """\
  output=FILE      the texts               (default: out/rewritten/MIXTURE-PROMPT.parquet)
  language=NAME    of a prompt that asks for one (translate)
  texts=read       texts as they were read; mixture: as the mixture already has them rewritten
  licence=NAME     under which the model's outputs stand; terms=A,B: what it asks or forbids
"""
