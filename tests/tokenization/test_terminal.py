"""What strangers named or wrote moves no cursor, and no credential is shown."""

import subprocess
import sys

import pytest

from tokenization.terminal import printable, say, say_traceback, without_credentials
from trainer.__main__ import main


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("s3://AKIA:wJalrx@bucket/a", "s3://***@bucket/a"),
        ("see https://me:pw@host/a?b=1&token=abc#c", "see https://***@host/a?b=1&token=***#c"),
        ("https://b/x?X-Amz-Signature=1f&X-Amz-Date=2", "https://b/x?X-Amz-Signature=***&X-Amz-Date=2"),
        ("https://b/x?sv=2&sig=a%2Fb", "https://b/x?sv=2&sig=***"),
        ("with hf_abcdefghijklmnopqrstuvwx in it", "with *** in it"),
        ("s3://bucket/a@b", "s3://bucket/a@b"),
        ("a token=word in prose", "a token=word in prose"),
    ],
)  # fmt: skip
def test_credentials_are_cut_out(said, shown):
    assert without_credentials(said) == shown


def test_what_is_printed_moves_no_cursor():
    assert printable("a\x1b[2Jb\u202ec\rd") == "a\\u001b[2Jb\\u202ec\\u000dd"
    assert printable("\x1b[32mgreen\x1b[0m\tx\n") == "\x1b[32mgreen\x1b[0m\tx\n"


def test_errors_stand_on_stderr(capsys):
    say("a\x07", error=True)
    say("b\x07")
    assert capsys.readouterr() == ("b\\u0007\n", "a\\u0007\n")


def test_a_traceback_shows_no_more(capsys):
    with pytest.raises(ValueError, match="row") as caught:
        float("row \x1b[2J\u202e of https://me:pw@host/a")
    say_traceback(caught.type, caught.value, caught.tb)
    found = capsys.readouterr().err
    assert "Traceback" in found
    assert "https://***@host/a" in found
    assert not any(mark in found.partition("Error:")[2] for mark in ("\x1b", "\u202e", "pw"))


def test_a_mistake_of_the_trainers_user_is_told_so_too(capsys):
    assert main(["config=tiny", "data=s3://me:pw@x/\x1b[2J\u202ea", "batch_rows=0"]) == 2
    assert main(["config=tiny", "data=/none/\x1b[2J\u202ea"]) == 2
    told = capsys.readouterr().err
    assert "/none/\\u001b[2J\\u202ea" in told
    assert not any(mark in told for mark in ("\x1b", "\u202e", "pw"))


def test_a_level_that_was_set_before_importing_us_stays():
    code = (
        "import logging; logging.getLogger('pipelines').setLevel('WARNING'); import pipelines;"
        "from tokenization.terminal import tells; print(tells('pipelines'), tells('trainer'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False True\n"
