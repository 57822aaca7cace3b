"""Alignment: a checkpoint goes in, TRL trains it on pairs or by verifiable answers, one comes out.

| file         | what it holds                                                          |
|--------------|------------------------------------------------------------------------|
| settings.py  | `align`'s settings; dpo.yaml, mpo.yaml, grpo.yaml beside it            |
| data.py      | shards of a finished mixture -> PAIRS (ids) or QUESTIONS (messages)    |
| with_trl.py  | the only file that knows TRL                                           |
| result.py    | the checkpoint that comes out: weights, processor, card, lineage       |
| run.py       | these in order                                                         |
| sampled.py   | a checkpoint's own answers to a mixture's questions                    |
| rejection.py | which of them make a pair, and why others make none                    |
| answer_files.py | pairs, facts and candidates in files, and the mixtures of them      |
| answers.py   | `answers`: these in order                                              |
"""
