"""A tokenizer or an image that a stranger made runs no code of theirs."""

import io
import json

import pytest
from PIL import Image

from filters import scores
from tokenization import images
from tokenization.vocab import load_tokenizer


@pytest.mark.parametrize("loads", ["tokenizer_class", "auto_map"])
def test_a_tokenizer_with_code_of_its_own_never_runs_it(tmp_path, monkeypatch, loads):
    """`transformers` would ask, and run it on a y."""
    load_tokenizer("builtin").save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config["auto_map"] = {"AutoTokenizer": ["evil.EvilTokenizer", "evil.EvilTokenizer"]}
    if loads == "auto_map":
        config["tokenizer_class"] = "EvilTokenizer"
    path.write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\ny\ny\n"))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    if loads == "auto_map":
        with pytest.raises(FileNotFoundError, match=r"encoding\.tokenizer: found no tokenizer"):
            load_tokenizer(str(tmp_path))
    else:
        assert load_tokenizer(str(tmp_path)).vocab_size
    assert not (tmp_path / "ran").exists()


PROGRAM = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"


def saved(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (24, 24), "red").save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("read", [images.open_image, images.image_size])
@pytest.mark.parametrize(
    "data",
    [PROGRAM, b"\xc5\xd0\xd3\xc6" + bytes(28) + PROGRAM, saved("EPS"), saved("PCX"), saved("SGI")],
)
def test_a_format_that_is_not_on_the_list_is_no_image_wherever_it_is_opened(read, data):
    with pytest.raises(ValueError, match="undecodable image"):
        read(data)


@pytest.mark.parametrize("kind", ["AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM",
                                  "TIFF", "WEBP", "MPO"])  # fmt: skip
def test_what_is_on_the_list_is_read(kind):
    if kind not in Image.SAVE:
        Image.init()
    assert images.open_image(saved(kind)).size == images.image_size(saved(kind))


def test_models_see_no_other_formats_than_the_rest():
    assert scores.FORMATS == images.FORMATS
