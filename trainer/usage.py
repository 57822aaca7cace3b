"""The help of the trainer's commands."""

TRAIN = """\
  config=NAME      tiny, smolvlm_256m, smolvlm_500m, smolvlm_2b2, or a YAML file; the paper's
                   other pairings: pairing_so400m_135m, pairing_so400m_360m, pairing_b16_1b7
  data=DIR         a finished mixture; '{A: 3, B: 1}' mixes several by share of rows
  output=DIR       the run                    (default: out/runs/<config name>-<mixture name>)
  init=CHECKPOINT  start from the weights of a stage before, or of a SmolVLM of the hub
                   (HuggingFaceTB/SmolVLM2-500M-Video-Instruct, ORG/NAME@revision); without
                   config= the sizes are this checkpoint's

Any other key=value overrides the config, with dots: optim.lr.vision=5e-6. Those asked for most:

  steps=N, epochs=1       how long; steps wins
  batch_rows=64           packed rows per step, over all processes
  micro_rows=1            of them at one time in memory
  save_every=500          steps between checkpoints; each updates RUN/run.html
  evaluate_every=0        steps between held-out losses; 0: at the end
  device=auto, threads=0  where it runs
  optim.freeze=[vision]   towers that stay as they are: vision, connector, language
  adapter.rank=0          above 0: train low-rank adapters

Several devices: torchrun --nproc-per-node=8 -m trainer config=... data=... [parallel=fsdp]
On a Ray cluster: python -m trainer config=... data=... output=... ray=auto ranks=16 [failures=3]
Every field: trainer/config.py; what they mean: docs/trainer.md.
"""

EVALUATE = """\
CHECKPOINT is a checkpoint's folder, or a run's: then its newest one.

  bench=FILE.tsv     VLMEvalKit's layout: index, image, question, answer, options A, B, ...
  metric=auto        exact, multiple_choice, anls, relaxed, yes_no, mixed; auto: options make it
                     multiple_choice (mixed where some have none), answers of yes and no yes_no,
                     anything else exact
  choices_from=auto  0 or 1: from where answers that are numbers of options count, where the file
                     itself does not tell; letters and texts of options need nothing
  against=CHECKPOINT ask another one too, and compare them by a paired test
  prompts=trained    plain: without the system prompt and the words around images of training, as
                     most programs ask; trained,plain: both, and their difference
  images=own         shuffled: every question gets another one's image; what is then still right,
                     the questions alone gave away
  limit=0            only the first N questions; 0: all
  batch=16           questions at one time
  max_new_tokens=32  of an answer
  device=auto        auto, cpu or cuda
  threads=0          of torch on CPUs; 0: its own choice
  output=DIR         (default: CHECKPOINT/evaluations)

Writes there FILE.json (the score and its 95 % interval, and per category), FILE.tsv (every
question, its answer, what the model said, its score), FILE.vlmevalkit.json for `run.py --config`
of VLMEvalKit, and LMUData/FILE.tsv where VLMEvalKit looks for it ($LMUData, where that is set).
Intervals and tests count images, not questions: questions about one image are not independent.

  vlmevalkit=NAMES   asks nothing: writes that file for benchmarks of VLMEvalKit, videos too, say
                     MMMU_DEV_VAL,Video-MME; `paper`: those of SmolVLM's paper
"""

ALIGN = """\
  config=dpo         dpo: pairs of answers; mpo: the same with three losses; grpo: the model's own
                     answers, scored against the gold ones of the mixture; or a YAML file
  data=DIR           a finished mixture: of pairs (docs/align.md), of grpo any with short answers
  init=CHECKPOINT    what is aligned; its encoding must be the mixture's
  output=DIR         the run                       (default: out/runs/<config>-<mixture>)

Any other key=value overrides the config, with dots: loss.sft=0.5. Those asked for most:

  lr=1e-6, beta=0.1  how far a step goes, and how strongly the checkpoint that came in holds
  epochs=1, steps=0  how long; steps wins
  batch=32, micro=4  pairs (grpo: questions) a step, and at one time in memory
  freeze=[vision]    towers that stay as they are: vision, connector, language
  held_out=512       rows of the val split that are measured before and after
  metric=exact       grpo's reward: exact, anls, relaxed, yes_no
  save_every=0       steps between states from which the same command goes on
  trl.KEY=VALUE      any other field of TRL's DPOConfig or GRPOConfig

Several devices: torchrun --nproc-per-node=8 -m trainer align config=... data=... init=...
TRL trains: pip install 'smolvlm-pipelines[align]'. Every field: trainer/align/settings.py.
"""

ANSWERS = """\
Rejection sampling: the last answer of every sample is the gold one; the checkpoint answers its
question several times, and right answers are paired with wrong ones. What is drawn depends on the
seed and the question alone; stopped, the same command goes on, and another metric, right, chosen or
pairs asks nothing again.

  data=DIR           a finished mixture, built for this checkpoint's crops and tokens
  generations=8      answers to each question;  temperature=1.0, seed=17: how they are drawn
  max_new_tokens=64  of an answer; one that is cut is neither preferred nor rejected
  metric=exact       exact, anls, relaxed, yes_no, multiple_choice, mixed (options are read from the
                     question's lines); none: nothing is scored, and candidates.yaml is a mixture
                     for `pipelines judge`, whose file is then ratings=FILE rating=COLUMN right=N
  right=1            the least score of a right answer (anls: 0.8, say)
  chosen=sampled     gold: the mixture's answer is preferred, so that all_wrong makes pairs too
  pairs=1            of a question, at most
  split=train        train, val or all;  component=A,B: of these alone;  limit=0: so many questions
  batch=16           answers at one time;  device=auto, threads=0: where it runs
  output=DIR         (default: CHECKPOINT/answers/MIXTURE)
  cache=, cache_bytes=   of a mixture at a URL

Writes there pairs.parquet and pairs.yaml, the mixture of them for `pipelines build`, then `align`;
answers.parquet with every answer, its score, the pass_rate and the verdict of every sample
(all_right, all_wrong, no_answer, no_gold), an annotation for rules; answers.json with the counts.
docs/align.md.
"""

SCORE = """\
Three passes over every packed row: with the samples' own images, with none, and with images of
other samples that have the same grid. Per sample, mean losses per learned token:

  visual_gain   loss without images - loss with its own: near 0, no look is needed; below 0, the
                images mislead
  image_match   loss with another sample's images - loss with its own: near 0, any image would do

With like=DIR it says how much each sample is like those of another finished mixture instead, a
target set that is not trained on: `likeness` (0 to 1) and the `likeness_weight` for `weight_by`.

  data=DIR      a finished mixture, built for this checkpoint's crops and tokens
  like=DIR      another one, of the target set
  split=all     train, val or all
  output=FILE   (default: CHECKPOINT/scores/MIXTURE.parquet, of one split MIXTURE-SPLIT.parquet,
                with like MIXTURE-like-TARGET.parquet)
                a line per sample id
  device=auto   auto, cpu or cuda
  threads=0     of torch on CPUs; 0: its own choice
  cache=DIR     of a mixture at a URL: where its shards come, one after the other, ...
  cache_bytes=0 ... and how much of them may lie there; 0: all

A mixture whose component names the file under `annotations` has these columns as facts, for rules
and `weight_by`: docs/scores.md. Stopped, the same command goes on after the last whole shard.
"""

AVERAGE = """\
Keep enough of them: keep_last=5 in the run.

  last=5      so many checkpoints, the newest
  output=DIR  (default: RUN/average-<first step>-<last step>)
"""

SWEEP = """\
FILE.yaml names arms, each a set of changes of the mixture (`build`) and of the trainer (`train`).
Every arm is trained with every seed and judged on the same held-out samples; the table has means,
spread, differences to the baseline with 95 % intervals, and a verdict: better, worse, not shown.

  seeds=N        1 to N, or a list: [3, 5, 8]   (default: as the file says, else 3)
  output=DIR     mixtures/, runs/, table.json, sweep.html (default: out/sweeps/<file's name>)
  runs=DIR       where runs are kept: sweeps that share it train nothing twice
  data=DIR work=DIR workers=N      of `pipelines build`, for mixtures that are not finished
  ranks=N        each run on N processes of this machine
  ray=auto gpus=1                  each run a task of a Ray cluster with so many GPUs

The same command goes on where it was killed, tries again what failed, and ends with the same
table. Exit status 1 where a run failed; the others are not ended by it. docs/ablations.md.
"""

SEARCH = """\
  mixture=FILE.yaml   whose ratios are the prior; it is built, small, once for every trial
  target='{A: 1, B: 2}'  components whose held-out loss is to be low, with their weights,
                      and benchmarks whose score is to be high: of benchmarks=
  benchmarks='{B: {file: vqa.tsv, metric: exact}}'  of which nothing may be trained on
  method=regression   designs beforehand and a log-linear model of them;
                      bayes: one after the other by a Gaussian process;
                      merge: one expert per component, whose weights are averaged
  runs=16             trainings of the search; train_tokens=N instead: as many as that allows;
                      hours=N: as many as take no longer, runs=N at most
  stages=1            2 or 3: a schedule of as many steps is searched
  tokens=100000       of each trial's mixture, which is seen once
  size=N              tokens that the proposal is meant for, at which supply binds as well
  seeds=5             of the verification: proposal, prior, uniform, by supply; 0: none
  verify_config=NAME  verify_tokens=N  verify.KEY=VALUE  a larger size at which they are verified
                      as well, beside verify_runs=4 of the search: how alike the sizes rank
  bounds='{noise: [0, 0.3]}'  fixed='{text: 0.2}'  groups='[[charts, tables]]'
  config=tiny         of the trainer; train.KEY=VALUE sets any key of it
  output=DIR          result.json, page.html, proposal.yaml
                      (default: out/search/<mixture>)
  trials=DIR          mixtures and runs, which searches may share (default: inside output)
  work=DIR            the cache of the builds (default: inside output)

components.*, encoding.*, filters.*, val_fraction (0.1), data, workers, ray go to the builds.
Said again it goes on where it stopped and ends the same. docs/search.md
"""
