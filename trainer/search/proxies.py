"""What small proxies say of large models: what Olmix measured, beside the proxy at hand.

Olmix, arXiv 2602.12237: rank correlation of proxies with 1 B of 0.73 at 1 M parameters and above
0.89 from 15 M on; the runs that are needed grow linearly with the number of domains.
"""

from collections.abc import Mapping

from trainer.monitoring.watch import human_count
from trainer.search.bench import Bench, parameters_of
from trainer.search.space import Ratio, Space

SMALL, SMALL_CORRELATION = 1_000_000, 0.73
SURE, SURE_CORRELATION = 15_000_000, 0.89


def advice(parameters: int) -> str:
    """How far the ranks of proxies of so many parameters are those of 1 B, as Olmix has it."""
    told = f"The proxy has {human_count(parameters)} parameters. "
    measured = (
        f"Olmix (arXiv 2602.12237) measured a rank correlation with 1 B of {SMALL_CORRELATION} at "
        f"1 M parameters and above {SURE_CORRELATION} from 15 M on: "
    )
    if parameters < SMALL:
        return f"{told}{measured}less is to be expected of this one; verify at a larger size."
    if parameters < SURE:
        return f"{told}{measured}this one is between; verify at a larger size, or take 15 M."
    return f"{told}{measured}this one is large enough."


def advise(bench: Bench, space: Space) -> None:
    """Says it, once the first run is there."""
    bench.say(advice(parameters_of(next(iter(bench.runs.values())))))
    bench.say(
        f"{space.size} ratios are searched; Olmix: the runs that are needed grow linearly with them"
    )


def said(ratios: Mapping[str, Ratio]) -> str:
    """Ratios for people."""
    return ", ".join(
        f"{name} " + (" > ".join(f"{s:.3f}" for s in r) if isinstance(r, list) else f"{r:.3f}")
        for name, r in ratios.items()
    )
