"""HuggingFaceM4/Docmatix: `data/train-00000-of-00001-<hash>.parquet`, a document's pages per row.

The documents are Python's own: the language reference's topics and the docstrings of modules,
laid out on pages of paper. Every answer follows from the text on the pages.
"""

import inspect
import re
import sysconfig
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from quickstart_data import drawing
from quickstart_data.files import (
    Planted,
    count,
    hashed_name,
    image_record,
    png,
    write_card,
    write_parquet,
)

NAME = "HuggingFaceM4/Docmatix"
MAX_PAGES = 3
DOCSTRING = re.compile(r'(?:#[^\n]*\n|\s)*[rR]?"""(?P<told>.*?)"""', re.DOTALL)
FACES = ("DejaVuSans", "DejaVuSerif", "DejaVuSansMono")


def texts() -> list[tuple[str, str]]:
    """(title, text) of every document."""
    from pydoc_data.topics import topics

    found = []
    for name, told in sorted(topics.items()):
        title = told.strip().splitlines()[0].strip()
        found.append((title if len(title) > 3 else name, told))
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        opening = DOCSTRING.match(path.read_text(encoding="utf-8"))
        doc = inspect.cleandoc(opening["told"]) if opening else ""
        if len(doc) >= 500:
            found.append((f"Module {path.stem}", f"Module {path.stem}\n\n{doc}"))
    return found


def ask(title: str, pages: list[list[str]], rng: Random) -> list[tuple[str, str]]:
    """Three to five questions about a document."""
    page = rng.randrange(len(pages))
    filled = [line.strip() for line in pages[page] if line.strip()]
    first = " ".join(" ".join(filled).split()[:5])
    asked = [
        ("How many pages does the document have?", f"{len(pages)}."),
        (f"With which words does page {page + 1} begin?", f"{first}"),
        (f"What is the last line of page {page + 1}?", filled[-1]),
    ]
    words = Counter(re.findall(r"[a-z]{5,}", " ".join(filled).lower()))
    if words:
        word, times = words.most_common(1)[0]
        asked.append((f"How often does '{word}' stand on page {page + 1}?", f"{times} times."))
    rng.shuffle(asked)
    paragraph = " ".join(" ".join(filled[:4]).split())
    return [
        ("What is the title of the document?", f"{title}."),
        *asked[: rng.randint(2, 3)],
        (f"Transcribe the first lines of page {page + 1}.", paragraph),
    ]


def make_row(title: str, pages: list[list[str]], rng: Random) -> dict[str, Any]:
    """A row: the pages as images and the questions."""
    family = rng.choice(FACES)
    images = [
        png(drawing.draw_page(lines, title=title, family=family, number=at + 1))
        for at, lines in enumerate(pages)
    ]
    turns = [
        {"user": user, "assistant": answer, "source": "PDFA key: " + title}
        for user, answer in ask(title, pages, rng)
    ]
    return {"images": [image_record(data) for data in images], "texts": turns}


def write(folder: Path, *, share: float) -> tuple[dict[str, int], list[Planted]]:
    """The `images` config, and the card."""
    from datasets import Features, Image, List, Value

    rng = Random("documents")
    documents = []
    for title, told in texts():
        pages = drawing.lay_pages(told)
        while pages:
            number = rng.randint(1, MAX_PAGES)
            documents.append((title, pages[:number]))
            pages = pages[number:]
    rng.shuffle(documents)
    rows = [make_row(title, pages, rng) for title, pages in documents[: count(260, share)]]

    page = rows[2]["images"][0]
    page["bytes"] = page["bytes"][: len(page["bytes"]) // 3]
    blank = drawing.draw_page([], title="", family=FACES[0], number=1)
    blank.paste(blank.getpixel((0, 0)), (0, 0, *blank.size))
    rows[8]["images"] = [image_record(png(blank))]

    features = Features(
        {
            "images": List(Image()),
            "texts": List(
                {"user": Value("string"), "assistant": Value("string"), "source": Value("string")}
            ),
        }
    )
    file = f"data/{hashed_name('train', of='docmatix')}"
    write_parquet(folder / file, rows, features)
    write_card(
        folder,
        "license: mit\nlanguage:\n- en\nconfigs:\n- config_name: images\n  data_files:\n"
        "  - split: train\n    path: data/train-*\n",
    )
    bad = [
        Planted(repository=NAME, subset="images", row=at, file=file, what=what)
        for at, what in ((2, "truncated_image"), (8, "blank_page"))
    ]
    return {"images": len(rows)}, bad
