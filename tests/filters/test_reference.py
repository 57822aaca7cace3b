"""docs/rules.md says what the rules are now, and the table of bands what the formula gives."""

import re
from pathlib import Path

from filters import reference
from filters.duplicates import near

PAGE = Path(__file__).resolve().parents[2] / "docs" / "rules.md"


def test_the_table_of_rules_is_up_to_date():
    page = PAGE.read_text(encoding="utf-8")
    assert page == reference.refreshed(page), "run: python -m filters.reference"


def test_the_probability_curve_is_that_of_the_formula():
    page = PAGE.read_text(encoding="utf-8")
    header = re.search(r"^\| s \|(.*)\|$", page, re.MULTILINE).group(1)
    similarities = [float(cell) for cell in header.split("|")]
    rows = re.findall(r"^\| r = (\d) \|(.*)\|$", page, re.MULTILINE)
    assert len(rows) == 3
    for size, cells in rows:
        expected = [f"{near.band_probability(s, int(size)):.2f}" for s in similarities]
        assert [cell.strip() for cell in cells.split("|")] == expected
