"""The table of a sweep: per arm and metric the mean, its spread, the difference and a verdict.

Metrics: `all` and `component/NAME` are held-out losses (lower is better), a benchmark's name is its
score (higher is better). The verdict that counts is of the sweep's `metric`; the others say where
it comes from.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.ablation.benchmarks import benchmark_score
from trainer.ablation.comparison import compare_by_seed, mean, spread
from trainer.ablation.execute import Job
from trainer.ablation.mixtures import Prepared
from trainer.ablation.runs import Cost, as_json, cost_of, held_out_losses, judge_run
from trainer.ablation.sweep import Sweep
from trainer.arguments import did_you_mean
from trainer.data.shards import open_mixture
from trainer.monitoring.watch import human_count


def metrics_of(job: Job, held_out: Sequence[str]) -> dict[str, float]:
    """All that is measured of a complete run."""
    scores = judge_run(job.run, open_mixture(job.judge))
    asked = {name: benchmark_score(job.run, each) for name, each in job.benchmarks.items()}
    return {**held_out_losses(scores, held_out), **asked}


def metric_name(sweep: Sweep, components: Sequence[str]) -> str:
    """The sweep's metric by its full name; ValueError where it is none."""
    known = {"all": "all", **{name: f"component/{name}" for name in components},
             **{name: name for name in sweep.benchmarks}}  # fmt: skip
    if sweep.metric not in known:
        raise ValueError(
            f"{sweep.name}: metric '{sweep.metric}' is none. "
            f"{did_you_mean(sweep.metric, list(known))}"
        )
    return known[sweep.metric]


def table(
    sweep: Sweep, jobs: Sequence[Job], failed: Mapping[int, str], prepared: Prepared, metric: str
) -> dict[str, Any]:
    """All numbers of the sweep, as JSON has them. But for `cost` they depend on nothing else than
    the arms and seeds.
    """
    found: dict[str, dict[int, dict[str, float]]] = {arm.name: {} for arm in sweep.arms}
    costs: dict[str, list[Cost]] = {arm.name: [] for arm in sweep.arms}
    for number, job in enumerate(jobs):
        if number not in failed:
            found[job.arm][job.seed] = metrics_of(job, prepared.held_out)
            costs[job.arm].append(cost_of(job.run))
    names = sorted({name for runs in found.values() for run in runs.values() for name in run})
    names.sort(key=lambda name: (name != metric, name))
    return {
        "name": sweep.name,
        "description": sweep.description,
        "metric": metric,
        "baseline": sweep.baseline.name,
        "seeds": list(sweep.seeds),
        "held_out": len(prepared.held_out),
        "held_out_left_out": prepared.left_out,
        "arms": [
            {
                "name": arm.name,
                "changes": dict(arm.changes),
                "metrics": {
                    name: _line(name, found[arm.name], found[sweep.baseline.name], sweep)
                    for name in names
                },
                "cost": _total(costs[arm.name]),
                "failed": {
                    str(jobs[number].seed): message
                    for number, message in failed.items()
                    if jobs[number].arm == arm.name
                }
                | ({"every": prepared.broken[arm.name]} if arm.name in prepared.broken else {}),
            }
            for arm in sweep.arms
        ],
        "runs": [
            {"arm": job.arm, "seed": job.seed, "fingerprint": job.run.fingerprint} for job in jobs
        ],
    }


def _line(
    name: str,
    arm: Mapping[int, Mapping[str, float]],
    baseline: Mapping[int, Mapping[str, float]],
    sweep: Sweep,
) -> dict[str, Any]:
    """A metric of an arm; numbers that there are not are null."""
    values = {seed: run[name] for seed, run in arm.items() if name in run}
    line: dict[str, Any] = {
        "mean": mean(values),
        "spread": spread(values),
        "by_seed": {str(seed): value for seed, value in sorted(values.items())},
    }
    if arm is not baseline:
        theirs = {seed: run[name] for seed, run in baseline.items() if name in run}
        lower = name not in sweep.benchmarks
        line["difference"] = dataclasses.asdict(
            compare_by_seed(values, theirs, lower_is_better=lower)
        )
    found: dict[str, Any] = as_json(line)
    return found


def text_table(found: Mapping[str, Any]) -> str:
    """What the command ends with."""
    return "\n".join([*_heading(found), "", *_aligned(_rows(found)), "", *_notes(found)])


def _heading(found: Mapping[str, Any]) -> list[str]:
    lower = "/" in found["metric"] or found["metric"] == "all"
    what = "loss per learned token, lower is better" if lower else "score, higher is better"
    return [
        f"{found['name']}: {found['description']}".rstrip(": "),
        f"{found['metric']} ({what}) on {found['held_out']:,} held-out samples, "
        f"{len(found['seeds'])} seeds; differences to '{found['baseline']}', paired by seed, with "
        "95 % intervals of Student's t",
    ]


def _rows(found: Mapping[str, Any]) -> list[list[str]]:
    rows = [["arm", "runs", "mean", "spread", "difference", "95 % interval", "verdict", "tokens",
             "CPU s", "device s"]]  # fmt: skip
    for arm in found["arms"]:
        line, cost = arm["metrics"].get(found["metric"], {}), arm["cost"]
        rows.append(
            [arm["name"], str(cost["runs"]), number(line.get("mean")), number(line.get("spread")),
             *difference_cells(line.get("difference"), arm["failed"]),
             human_count(cost["tokens"]), f"{cost['cpu_seconds']:.0f}",
             f"{cost['device_seconds']:.0f}"]
        )  # fmt: skip
    return rows


def difference_cells(line: Mapping[str, Any] | None, failed: Mapping[str, str]) -> list[str]:
    """Difference, interval and verdict, for people."""
    lost = f" ({len(failed)} failed)" if failed else ""
    if line is None:
        return ["", "", f"baseline{lost}"]
    interval = "" if line["low"] is None else f"{line['low']:+.4f} to {line['high']:+.4f}"
    return ["" if line["mean"] is None else f"{line['mean']:+.4f}", interval,
            line["verdict"] + lost]  # fmt: skip


def number(value: float | None) -> str:
    """Four decimals; nothing where there is no number."""
    return "" if value is None else f"{value:.4f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if k in (0, 6) else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _notes(found: Mapping[str, Any]) -> list[str]:
    notes = []
    for arm in found["arms"]:
        parts = [
            f"{name.removeprefix('component/')} {line['difference']['mean']:+.4f} "
            f"{line['difference']['verdict']}"
            for name, line in arm["metrics"].items()
            if name != found["metric"] and line.get("difference", {}).get("mean") is not None
        ]
        if parts:
            notes.append(f"{arm['name']}: {'; '.join(parts)}")
        notes += [f"{arm['name']}, seed {seed}: failed: {why}" for seed, why in
                  arm["failed"].items()]  # fmt: skip
    if found["held_out_left_out"]:
        notes.append(f"{found['held_out_left_out']:,} held-out samples of the baseline's are not "
                     "in the encoding of every arm, and judge none")  # fmt: skip
    values = {
        value
        for arm in found["arms"]
        for value in arm["metrics"].get(found["metric"], {}).get("by_seed", {}).values()
    }
    if len(values) == 1 and len(found["runs"]) > 1:
        notes.append(
            f"{found['metric']} is constant: {number(values.pop())} in every run, so it says "
            "nothing of the arms. Name another metric, or train longer."
        )
    compared = sum(len(arm["metrics"]) for arm in found["arms"][1:])
    notes.append(f"{compared} intervals, each for itself: about {0.05 * compared:.1f} of them "
                 "would be without zero if no arm changed anything")  # fmt: skip
    return notes


def _total(costs: Sequence[Cost]) -> dict[str, Any]:
    return {
        "runs": len(costs),
        "tokens": sum(cost.tokens for cost in costs),
        "learned_tokens": sum(cost.learned_tokens for cost in costs),
        "cpu_seconds": sum(cost.cpu_seconds for cost in costs),
        "device_seconds": sum(cost.seconds * cost.devices for cost in costs),
        "device": ", ".join(sorted({cost.device for cost in costs})),
    }
