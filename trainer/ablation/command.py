"""`python -m trainer sweep FILE.yaml`: mixtures, runs, a table and a page.

```
FILE.yaml --read_sweep--> arms --prepare--> finished mixtures --plan_run--> jobs (arm x seed)
    --complete_all--> runs --table--> OUT/table.json, OUT/sweep.html, the last words
```
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tokenization.command_line import DONE, FAULTS, Answer
from tokenization.terminal import log
from trainer.ablation import page, results
from trainer.ablation.execute import How, Job, complete_all
from trainer.ablation.leaving import answer_or_leave
from trainer.ablation.mixtures import Prepared, prepare
from trainer.ablation.runs import plan_run, write_json
from trainer.ablation.sweep import Sweep, read_sweep, run_config
from trainer.arguments import did_you_mean, split_pairs
from trainer.config import Config
from trainer.data.shards import open_mixture, refuse_mismatch
from trainer.evaluation.held_out import components
from trainer.model.initial import tokenizer_of

OPTIONS = {"sweep": "", "output": "", "seeds": "", "runs": "", "ranks": "0", "ray": "", "gpus": "0",
           "data": "", "work": "", "workers": ""}  # fmt: skip


def sweep_command(arguments: Sequence[str]) -> Answer:
    """The table; exit status 1 where a run failed, 143 where SIGTERM came."""
    return answer_or_leave(lambda: _swept(arguments))


def _swept(arguments: Sequence[str]) -> Answer:
    options = _options(arguments)
    sweep = read_sweep(Path(options["sweep"]), seeds=options["seeds"])
    output = Path(options["output"] or f"out/sweeps/{sweep.name}")
    place = {key: options[key] for key in ("data", "work", "workers") if options[key]}
    how = How(int(options["ranks"]), options["ray"], float(options["gpus"]))
    prepared = prepare(sweep, output, place=place)
    held = open_mixture(str(prepared.judges[sweep.baseline.name]))
    chosen = {name.rpartition("/")[0] for name in prepared.held_out}
    names = [name for prefix, name in components(held).items() if prefix in chosen]
    metric = results.metric_name(sweep, sorted(set(names)))
    jobs = plan_jobs(sweep, prepared, Path(options["runs"] or output / "runs"))
    log(f"{len(jobs)} runs: {len(sweep.arms)} arms, {len(sweep.seeds)} seeds; judged on "
        f"{len(prepared.held_out):,} held-out samples")  # fmt: skip
    output.mkdir(parents=True, exist_ok=True)  # a mistake in it costs no training
    failed = complete_all(jobs, how)
    found = results.table(sweep, jobs, failed, prepared, metric)
    write_json(output / "table.json", found)
    page.write(output / "sweep.html", found, jobs, failed)
    text = f"{results.text_table(found)}\n{output / 'sweep.html'}"
    return Answer(text, found, FAULTS if failed or prepared.broken else DONE)


def plan_jobs(sweep: Sweep, prepared: Prepared, runs: Path) -> list[Job]:
    """Every run, all arms of one seed before the next; ValueError where two arms are one run."""
    jobs, seen = [], dict[tuple[str, Path], str]()
    for seed in sweep.seeds:
        for arm in (arm for arm in sweep.arms if arm.name in prepared.mixtures):
            config = run_config(sweep, arm, seed=seed, data=prepared.mixtures[arm.name])
            judge = prepared.judges[arm.name]
            for folder in (prepared.mixtures[arm.name], judge) if seed == sweep.seeds[0] else ():
                _refuse_unfit(config, folder, arm=arm.name)
            run = plan_run(config, runs)
            same = seen.setdefault((run.fingerprint, judge), arm.name)
            if same != arm.name:
                raise ValueError(
                    f"{sweep.name}: the arms '{same}' and '{arm.name}' are the same runs, so every "
                    "metric is constant between them: they differ in nothing that training "
                    "depends on."
                )
            jobs.append(Job(arm.name, seed, run, str(judge), sweep.benchmarks))
    return jobs


def _refuse_unfit(config: Config, folder: Path, *, arm: str) -> None:
    """Shards that this model cannot take are named before the first run."""
    mixture = open_mixture(str(folder))
    try:
        refuse_mismatch(config, mixture, vocabulary=len(tokenizer_of([mixture])))
    except ValueError as error:
        raise ValueError(f"arm '{arm}': {error}") from error


def _options(arguments: Sequence[str]) -> Mapping[str, str]:
    """All options, checked; ValueError names a mistake."""
    pairs = split_pairs(arguments)
    for key in pairs:
        if key not in OPTIONS:
            raise ValueError(f"sweep: unknown key '{key}'. {did_you_mean(key, list(OPTIONS))}")
    options = OPTIONS | pairs
    if not options["sweep"]:
        raise ValueError("sweep: no file is named. Expected python -m trainer sweep FILE.yaml.")
    if not options["ranks"].isdigit():
        raise ValueError(f"sweep: ranks={options['ranks']}: expected a whole number.")
    try:
        gpus = float(options["gpus"])
    except ValueError:
        gpus = -1.0
    if gpus < 0:
        raise ValueError(f"sweep: gpus={options['gpus']}: expected how many a run is given.")
    if options["ray"] and int(options["ranks"]):
        raise ValueError("sweep: ranks= trains each run on this machine, ray= one run a task.")
    if gpus and not options["ray"]:
        raise ValueError("sweep: gpus= is what a task of Ray is given: set ray=auto as well.")
    return options
