"""Filters: which samples stay, and why not.

    SAMPLE --facts--> a flat row per sample --rules--> VERDICTS
    VERDICTS of all parts --mixture_applications--> ids that go

A rule is a function in one of the files below; importing this package registers all of them.

| file            | rules about                                    |
|-----------------|------------------------------------------------|
| conversation.py | who speaks, whether anything is said            |
| text.py         | the language                                    |
| datatrove.py    | datatrove's text filters, links, addresses      |
| image.py        | sizes, shapes and statistics of images          |
| video.py        | duration, frames                                |
| cot.py          | sections and conclusions of chains of thought   |
| ratings.py      | ratings per turn                                |
| bounds.py       | any number that is known of a sample            |
| scores.py       | what a model says of images and text            |
| decontamination | images and questions of test sets               |
| duplicates      | samples that others repeat (mixture level)      |

A mixture states the rules it wants under `filters:`; none applies unless it is listed, except that
a sample which ingest found defective is always rejected, with the defect as the reason.
"""

from filters import bounds, conversation, cot, datatrove, image, ratings, scores, text, video
from filters.bounds import (
    VALUE,
    bounded_facts,
    quantile_facts,
    validate_facts,
    verdict_columns,
)
from filters.decontamination import rules as benchmarks
from filters.decontamination.matches import Match, matches_of
from filters.decontamination.shown_items import ShownItem, read_items
from filters.duplicates.near import Compare
from filters.duplicates.rules import Application, mixture_applications, mixture_rules
from filters.duplicates.search import (
    PAIRS,
    Run,
    Search,
    candidates,
    comparison_of_candidates,
    pairs_of_band,
)
from filters.facts import VERDICTS, facts
from filters.rules import RULES, Rule, identity, rule, settings_of, validate
from filters.verdicts import judge, rewrite, rewriting, seconds_per_sample, validate_weight

__all__ = [
    "PAIRS",
    "RULES",
    "VALUE",
    "VERDICTS",
    "Application",
    "Compare",
    "Match",
    "Rule",
    "Run",
    "Search",
    "ShownItem",
    "benchmarks",
    "bounded_facts",
    "bounds",
    "candidates",
    "comparison_of_candidates",
    "conversation",
    "cot",
    "datatrove",
    "facts",
    "identity",
    "image",
    "judge",
    "matches_of",
    "mixture_applications",
    "mixture_rules",
    "pairs_of_band",
    "quantile_facts",
    "ratings",
    "read_items",
    "rewrite",
    "rewriting",
    "rule",
    "scores",
    "seconds_per_sample",
    "settings_of",
    "text",
    "validate",
    "validate_facts",
    "validate_weight",
    "verdict_columns",
    "video",
]
