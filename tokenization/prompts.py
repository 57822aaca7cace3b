"""Words that the pipeline adds to a sample: system prompts, media intros, outros, brevity hints.

Every sentence that is not a dataset's lies here. Where a table offers several, the hash of the
sample id chooses, so a sample always gets the same one. Where a sentence comes from:

* PAPER: quoted in SmolVLM (https://arxiv.org/abs/2504.05299), section 3.2;
* TRANSFORMERS: what `transformers` 5.23 writes around videos at inference; kept to the letter;
* all others are this project's own paraphrases.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from tokenization.schema import Encoding

Conversation = list[tuple[str, list[str | int]]]
"""(role, parts) in order; a part is text or the number of an image."""

SYSTEM_PROMPTS: dict[str, dict[str, tuple[str, ...]]] = {
    "none": {},
    "smolvlm": {
        "conversation": (
            "You are a useful conversational assistant.",  # PAPER
            "You are a helpful assistant who answers in conversation.",
            "You are an assistant. Talk with the user and be of use.",
            "Help the user with what they ask, in a friendly and clear way.",
        ),
        "vision_task": (
            "You are a visual agent and should provide concise answers.",  # PAPER
            "You look at pictures and give short, exact answers.",
            "Answer questions about images in as few words as needed.",
            "You are a vision assistant. Be brief and precise.",
        ),
        "vision_conversation": (
            "You are a helpful assistant who can see the images the user shows.",
            "Look closely at what the user shows you and explain it well.",
            "You are a visual assistant. Describe and discuss pictures in full sentences.",
        ),
        "document": (
            "You read documents and answer from what is written in them.",
            "You are a document assistant. Base every answer on the pages shown.",
            "Answer questions about pages, forms and tables with the text they contain.",
        ),
        "transcription": (
            "You transcribe what is written in the picture, exactly.",
            "Read the image and write down its content without changing it.",
            "You are a reader of handwriting, print and formulas. Copy what you see.",
        ),
        "multi_image": (
            "You are shown several images. Compare and combine them in your answers.",
            "Take all the pictures into account when you answer.",
            "You are a visual assistant who reasons over more than one image.",
        ),
        "video": (
            "You watch videos through their frames and answer questions about them.",
            "You are a video assistant. Use the frames and their times in your answers.",
            "Follow what happens from frame to frame and answer the user.",
        ),
        "reasoning": (
            "You think step by step before you give your answer.",
            "Reason carefully, show the steps, then state the answer.",
            "You are an assistant who explains the reasoning behind every answer.",
        ),
    },
}
"""Table name -> kind of task -> prompts. Kinds of task are decided by `kind_of_task`."""

KINDS = tuple(SYSTEM_PROMPTS["smolvlm"])
DOCUMENT_WORDS = ("doc", "infographic", "visualmrc", "pdf", "receipt", "form")
TRANSCRIPTION_WORDS = ("mathwriting", "ocr_", "rendered_text", "iam", "latex", "handwrit")
SHORT_ANSWER_WORDS = 8
"""Answers of at most this many words make an image sample a `vision_task`."""
BRIEF_ANSWER_WORDS = 3
"""Answers of at most this many words may be asked for briefly."""
IMAGE_INTROS = (
    "Here is an image: ",  # PAPER opens so; this project ends it with a colon
    "Look at this picture: ",
    "The user shows an image: ",
)
IMAGES_INTROS = (
    "Here are {count} images: ",
    "Look at these {count} pictures: ",
    "The user shows {count} images: ",
)
IMAGE_OUTROS = (
    "\nGiven this image, respond to the following: ",  # PAPER opens so
    "\nWith this picture in mind: ",
    "\nNow about the image: ",
)
IMAGES_OUTROS = (
    "\nGiven these images, respond to the following: ",
    "\nWith these pictures in mind: ",
    "\nNow about the images: ",
)
VIDEO_INTRO = (  # TRANSFORMERS
    "You are provided the following series of {count} frames from a {duration} [H:MM:SS] video.\n"
)
FRAME_INTRO = "\nFrame from {minutes:02d}:{seconds:02d}:"  # TRANSFORMERS
VIDEO_OUTRO = "\n\n"  # TRANSFORMERS
BREVITY_HINTS = (
    "\nAnswer briefly.",
    "\nKeep it short.",
    "\nA word or a short phrase is enough.",
    " Give a short answer.",
    " Reply with a few words only.",
)
BREVITY_HINTS_MANY = (
    "\nAnswer this and the next questions briefly.",
    "\nKeep all your answers short.",
    " Use few words, also for what I ask next.",
)
# fmt: off
_UNITS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
# fmt: on


@dataclass(frozen=True)
class PromptTable:
    """A registered table of system prompts."""

    name: str
    prompts: Mapping[str, tuple[str, ...]]
    """Kind of task -> prompts."""
    version: int = 1
    """Bumped when a prompt changes; of the tables above it is not asked, they do not change."""
    plugin: str = ""
    """A hash of the plugin that registered it; empty: it is built in."""
    module: str = ""
    """Where it is registered."""

    @property
    def identity(self) -> list[dict[str, object]]:
        """What determines it besides its name; nothing, where it is built in."""
        known = {"table": self.name, "version": self.version, "plugin": self.plugin}
        return [known] if self.plugin else []


TABLES: dict[str, PromptTable] = {
    name: PromptTable(name, prompts) for name, prompts in SYSTEM_PROMPTS.items()
}
"""Every table by its name."""


def prompt_table(name: str, *, version: int = 1) -> Callable[..., Callable[[], Mapping]]:
    """Register the table that the decorated function returns: kind of task (KINDS) -> prompts."""

    def register(make: Callable[[], Mapping]) -> Callable[[], Mapping]:
        if name in TABLES:
            raise ValueError(f"a prompt table is called {name!r} already; choose another name")
        made = {kind: tuple(prompts) for kind, prompts in make().items()}
        for kind, prompts in made.items():
            if kind not in KINDS:
                raise ValueError(f"unknown kind of task {kind!r}. Known: {', '.join(KINDS)}")
            if not prompts or not all(isinstance(prompt, str) and prompt for prompt in prompts):
                raise ValueError(f"{kind}: expected a list of texts, at least one")
        TABLES[name] = PromptTable(name, made, version, module=make.__module__)
        return make

    return register


def hashed_choice(encoding: Encoding, purpose: str, sample_id: str, number: int) -> int:
    """An integer in [0, number), uniform, by hash of (seed, purpose, sample id)."""
    digest = hashlib.blake2b(f"{encoding.seed}/{purpose}/{sample_id}".encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "little") * number >> 64


def in_words(number: int) -> str:
    """`number` (0..999,999) as English words, the way num2words writes it."""
    if number < 20:
        return _UNITS[number]
    if number < 100:
        tens, unit = divmod(number, 10)
        return _TENS[tens] + (f"-{_UNITS[unit]}" if unit else "")
    if number < 1000:
        hundreds, rest = divmod(number, 100)
        return f"{_UNITS[hundreds]} hundred" + (f" and {in_words(rest)}" if rest else "")
    thousands, rest = divmod(number, 1000)
    link = "" if not rest else (" and " if rest < 100 else ", ")
    return f"{in_words(thousands)} thousand{link}{in_words(rest) if rest else ''}"


def clock(seconds: float) -> str:
    """H:MM:SS of a duration, as str(timedelta) writes it."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    ahead = f"{days} day{'s' if days != 1 else ''}, " if days else ""
    return f"{ahead}{hour}:{minute:02d}:{second:02d}"


def _answers(conversation: Conversation) -> Iterator[str]:
    for role, parts in conversation:
        if role == "assistant":
            yield "".join(part for part in parts if isinstance(part, str))


def _longest_answer(conversation: Conversation) -> int:
    """Words of the longest answer."""
    return max((len(answer.split()) for answer in _answers(conversation)), default=0)


@lru_cache(maxsize=1024)
def kind_of_name(name: str) -> str:
    """The kind of task that a subset's name says; "" where it says none."""
    if any(word in name.lower() for word in TRANSCRIPTION_WORDS):
        return "transcription"
    return "document" if any(word in name.lower() for word in DOCUMENT_WORDS) else ""


def kind_of_task(
    conversation: Conversation, *, source: str, subset: str, tags: Sequence[str], video: bool
) -> str:
    """The row of a table of system prompts for this sample; the first that holds, in this order."""
    num_images = sum(isinstance(part, int) for _, parts in conversation for part in parts)
    if "cot" in tags:
        return "reasoning"
    if video:
        return "video"
    if num_images == 0:
        return "conversation"
    if kind := kind_of_name(f"{source}/{subset}"):
        return kind
    if num_images > 1:
        return "multi_image"
    short = _longest_answer(conversation) <= SHORT_ANSWER_WORDS
    return "vision_task" if short else "vision_conversation"


def table_named(name: str) -> PromptTable:
    """The registered table; raises ValueError for one that does not exist."""
    if name not in TABLES:
        raise ValueError(
            f"encoding.system_prompts: unknown table {name!r}. Expected one of "
            f"{', '.join(sorted(TABLES))}."
        )
    return TABLES[name]


def with_system_prompt(
    conversation: Conversation, kind: str, *, sample_id: str, encoding: Encoding
) -> Conversation:
    """The conversation with a system prompt of its kind; its own, where it has one, is kept.

    Raises ValueError for a table that does not exist.
    """
    prompts = table_named(encoding.system_prompts).prompts.get(kind, ())
    if not prompts or any(role == "system" for role, _ in conversation):
        return conversation
    prompt = prompts[hashed_choice(encoding, "system", sample_id, len(prompts))]
    return [("system", [prompt]), *conversation]


def with_brevity_hint(
    conversation: Conversation, *, sample_id: str, encoding: Encoding
) -> Conversation:
    """The conversation with a hint after its first question, where all answers are brief."""
    if not 0 < _longest_answer(conversation) <= BRIEF_ANSWER_WORDS:
        return conversation
    many = sum(role == "assistant" for role, _ in conversation) > 1
    hints = BREVITY_HINTS_MANY if many else BREVITY_HINTS
    hint = hints[hashed_choice(encoding, "brevity", sample_id, len(hints))]
    first = next((n for n, (role, _) in enumerate(conversation) if role == "user"), None)
    if first is None:
        return conversation
    role, parts = conversation[first]
    return [*conversation[:first], (role, [*parts, hint]), *conversation[first + 1 :]]


def _frame_runs(parts: list[str | int], seconds: Sequence[float | None]) -> list[list[int]]:
    """Positions in `parts` of consecutive frames of one video; time going back starts another."""
    runs: list[list[int]] = []
    for position, part in enumerate(parts):
        now = seconds[part] if isinstance(part, int) else None
        if now is None:
            continue
        last = parts[runs[-1][-1]] if runs else None
        before = seconds[last] if isinstance(last, int) else None
        follows = runs and runs[-1][-1] == position - 1 and before is not None and before <= now
        if follows:
            runs[-1].append(position)
        else:
            runs.append([position])
    return runs


def _video_parts(
    parts: list[str | int],
    seconds: Sequence[float | None],
    duration: float | None,
    *,
    encoding: Encoding,
) -> list[str | int]:
    """`parts` with a time before each frame that has none yet, and an intro and outro around each
    video.
    """
    runs = _frame_runs(parts, seconds)
    out: list[str | int] = []
    done = 0
    for run in runs:
        out += parts[done : run[0]]
        frames = [part for part in parts[run[0] : run[-1] + 1] if isinstance(part, int)]
        times = [time for frame in frames if (time := seconds[frame]) is not None]
        whole = duration if duration is not None and len(runs) == 1 else times[-1]
        if encoding.media_intro_outro:
            out.append(VIDEO_INTRO.format(count=in_words(len(run)), duration=clock(whole)))
        for frame, time in zip(frames, times, strict=True):
            stated = FRAME_INTRO.format(minutes=int(time // 60), seconds=int(time % 60))
            if not (out and isinstance(out[-1], str) and out[-1].endswith(stated)):
                out.append(stated)
            out.append(frame)
        if encoding.media_intro_outro:
            out.append(VIDEO_OUTRO)
        done = run[-1] + 1
    return out + parts[done:]


def with_media_words(
    conversation: Conversation,
    *,
    sample_id: str,
    seconds: Sequence[float | None],
    duration: float | None,
    encoding: Encoding,
) -> Conversation:
    """The conversation with words around its media; `seconds` is per image, null for a still.

    Videos: as transformers writes them, wherever they stand. Stills: an intro and an outro where
    all of them open the first user message; text that already runs between images stays alone.
    """
    numbers = [part for _, parts in conversation for part in parts if isinstance(part, int)]
    if not numbers:
        return conversation
    if any(seconds[number] is not None for number in numbers):
        return [
            (role, _video_parts(parts, seconds, duration, encoding=encoding))
            for role, parts in conversation
        ]
    if not encoding.media_intro_outro:
        return conversation
    first = next((n for n, (role, _) in enumerate(conversation) if role == "user"), None)
    if first is None or conversation[first][1][: len(numbers)] != numbers:
        return conversation
    role, parts = conversation[first]
    intros, outros = (
        (IMAGE_INTROS, IMAGE_OUTROS) if len(numbers) == 1 else (IMAGES_INTROS, IMAGES_OUTROS)
    )
    intro = intros[hashed_choice(encoding, "intro", sample_id, len(intros))]
    intro = intro.format(count=in_words(len(numbers)))
    outro = outros[hashed_choice(encoding, "outro", sample_id, len(outros))]
    said = [intro, *numbers, outro, *parts[len(numbers) :]]
    return [*conversation[:first], (role, said), *conversation[first + 1 :]]
