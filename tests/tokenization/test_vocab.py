"""A tokenizer that lies in a folder, opened."""

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from tokenization.vocab import saved_tokenizer


def test_a_saved_tokenizer_is_read_again_where_a_file_of_it_changed(tmp_path):
    def save(words: dict[str, int]) -> None:
        whole = Tokenizer(WordLevel(words, unk_token="dog"))
        PreTrainedTokenizerFast(tokenizer_object=whole).save_pretrained(tmp_path)

    save({"dog": 0, "cat": 1})
    first = saved_tokenizer(tmp_path)
    assert saved_tokenizer(tmp_path) is first
    save({"dog": 1, "cat": 0})
    assert saved_tokenizer(tmp_path).get_vocab() == {"dog": 1, "cat": 0}
    assert first.get_vocab() == {"dog": 0, "cat": 1}
