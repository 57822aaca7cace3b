"""A tokenizer that lies in a folder, opened."""

import json
import subprocess
import sys

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tokenization.vocab import load_tokenizer


def test_a_saved_tokenizer_is_read_again_where_a_file_of_it_changed(tmp_path):
    def save(words: dict[str, int]) -> None:
        whole = Tokenizer(WordLevel(words, unk_token="dog"))
        PreTrainedTokenizerFast(tokenizer_object=whole).save_pretrained(tmp_path)

    save({"dog": 0, "cat": 1})
    first = load_tokenizer(str(tmp_path))
    assert load_tokenizer(str(tmp_path)) is first
    save({"dog": 1, "cat": 0})
    assert load_tokenizer(str(tmp_path)).get_vocab() == {"dog": 1, "cat": 0}
    assert first.get_vocab() == {"dog": 0, "cat": 1}


def test_a_folder_is_read_without_torch_as_transformers_reads_it(tmp_path):
    load_tokenizer("builtin").save_pretrained(tmp_path)
    code = (
        "import sys; from tokenization.vocab import load_tokenizer; load_tokenizer(sys.argv[1])\n"
    )
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
    ours, theirs = load_tokenizer(str(tmp_path)), AutoTokenizer.from_pretrained(tmp_path)
    assert type(ours) is type(theirs)
    assert ours.backend_tokenizer.to_str() == theirs.backend_tokenizer.to_str()
    for name in ("special_tokens_map", "chat_template", "model_max_length", "init_kwargs"):
        assert getattr(ours, name) == getattr(theirs, name), name


def test_a_class_of_a_models_own_is_what_transformers_makes_of_it(tmp_path):
    load_tokenizer("builtin").save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(
        json.dumps({**json.loads(file.read_text()), "tokenizer_class": "GPT2Tokenizer"})
    )
    ours = load_tokenizer(str(tmp_path))
    assert type(ours).__name__ == "GPT2Tokenizer"
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert ours.backend_tokenizer.to_str() == theirs.backend_tokenizer.to_str()
