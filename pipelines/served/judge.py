r"""`judge DIR prompt=... endpoint=...`: a served model rates the samples of a finished mixture.

    samples --run.py--> answers.jsonl --facts.py--> FILE.parquet (id, scores, verdict, reason)

The mixture names the file of facts as `annotations`, whose content then is part of its identity;
nothing is read again for it.
"""

from pipelines.served.counts import Asked
from pipelines.served.engines import Engine
from pipelines.served.facts import write_facts
from pipelines.served.prompts import Prompt
from pipelines.served.questions import Settings
from pipelines.served.run import Options, Where, everything_asked


def judge(
    folder: str, *, prompt: Prompt, engine: Engine, settings: Settings, options: Options,
    where: Where, plan: bool = False,
) -> Asked:  # fmt: skip
    """Every kept sample of the mixture has a line of facts in `where.output`, or is counted as
    missing; with `plan`, only what would be asked is known. Raises what `everything_asked` does.
    """
    with everything_asked(
        folder, command="judge", prompt=prompt, engine=engine, settings=settings, options=options,
        where=where, plan=plan,
    ) as (run, answers, found):  # fmt: skip
        if not plan:
            name = run.mixture.recipe["name"]
            found.output = where.output or f"out/judged/{name}-{prompt.name}.parquet"
            about = run.about(answers, engine)
            write_facts(run.rows(answers), prompt, found.output, about=about)
    return found
