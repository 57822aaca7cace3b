"""A finished mixture as a notebook shows it: the tables of its card and the plots of its report.

Everything of a dataset in it is escaped; it holds no script.
"""

from collections.abc import Iterable, Sequence
from html import escape

from pipelines.report import plots
from pipelines.report.card import MEASURES, human_amount, human_epochs, percent, rule_meaning
from pipelines.report.finished import Finished
from pipelines.report.page import stat_plots
from tokenization.pages import light_css

STYLE = (
    "<style>.smolvlm figure{display:inline-block;margin:0 12px 12px 0;max-width:360px;"
    "vertical-align:top}.smolvlm svg{max-width:100%;height:auto;background:#fff}"
    ".smolvlm figcaption{font-size:85%}" + light_css(".smolvlm") + "</style>"
)


def html(mixture: Finished) -> str:
    """What was asked and got, why samples were rejected, how it is packed, and the plots."""
    stats = mixture.stats
    measures = [name.replace("_", " ") for name in MEASURES]
    shares = table(
        ["component", "asked", *(f"got, {name}" for name in measures), "samples", "epochs"],
        (
            [
                name,
                percent(part["asked"]),
                *(percent(part["got"][measure]) for measure in MEASURES),
                human_amount(part["samples"]),
                human_epochs(part["epochs"]),
            ]
            for name, part in stats["components"].items()
        ),
    )
    rejected = table(
        ["rejected", "samples", "because"],
        (
            [rule, human_amount(found["samples"]), rule_meaning(rule)]
            for rule, found in stats["rejected"].items()
        ),
    )
    packed = table(
        ["packed", "rows", "tokens", "learned", "full", "shards"],
        (
            [
                split,
                human_amount(packing["rows"]),
                human_amount(packing["tokens"]),
                percent(packing["learned_share"]),
                percent(packing["fill"]),
                human_amount(packing["shards"]),
            ]
            for split, packing in stats["packing"].items()
            if packing["rows"]
        ),
    )
    flow = plots.flow(stats, title="Samples from the components to the shards")
    figures = "".join(
        f"<figure>{plot['svg']}<figcaption>{escape(plot['title'])}: {escape(plot['note'])}"
        "</figcaption></figure>"
        for plot in stat_plots(mixture)
    )
    head = f"<h3>{escape(stats['name'])}</h3><p>{escape(mixture.folder)}, recipe "
    return (
        f'{STYLE}<div class="smolvlm">{head}{escape(stats["fingerprint"])}</p>'
        f"{shares}{rejected if stats['rejected'] else ''}{packed}{flow}<div>{figures}</div></div>"
    )


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """An HTML table, every cell escaped."""
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in lines
    )
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f"<table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>"
