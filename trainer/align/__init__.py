"""Alignment: a checkpoint goes in, TRL trains it on pairs or by verifiable answers, one comes out.

| file         | what it holds                                                          |
|--------------|------------------------------------------------------------------------|
| settings.py  | `align`'s settings; dpo.yaml, mpo.yaml, grpo.yaml beside it            |
| data.py      | shards of a finished mixture -> PAIRS (ids) or QUESTIONS (messages)    |
| with_trl.py  | the only file that knows TRL                                           |
| result.py    | the checkpoint that comes out: weights, processor, card, lineage       |
| run.py       | these in order                                                         |
"""
