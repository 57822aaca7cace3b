"""Shards -> SmolVLM checkpoints.

| file          | what it does                                                                |
|---------------|-----------------------------------------------------------------------------|
| config.py     | settings: YAML + `key=value` -> frozen dataclasses                          |
| data.py       | memory-mapped shards -> micro-batches, in an order that is a pure function  |
| model.py      | a SmolVLM of `transformers`, and the loss over a packed micro-batch          |
| attention.py  | samples of a packed row do not see each other, by four means, one result    |
| optim.py      | learning rate per tower, weight decay groups, schedules                     |
| parallel.py   | one process, DDP or FSDP2; cluster.py: the same by Ray Train                 |
| loop.py       | the training loop                                                           |
| checkpoint.py | a `transformers` folder plus trainer state, atomic, exact to resume         |
| build.py      | the model a run starts from; graft.py: two pretrained backbones in one      |
| adapter.py    | LoRA and DoRA, over 4-bit weights where asked                               |
| card.py       | the model card                                                              |
| watch.py      | log, progress, TensorBoard, messages                                        |
| held_out.py   | loss per component                                                          |
| page.py       | RUN/run.html; said.py: val samples and what the model says to them          |
| answer.py     | a checkpoint answers questions about images                                 |
| benchmark.py  | benchmarks in VLMEvalKit's layout; metrics.py: how answers are scored       |
| evaluate.py   | the command that asks, scores, compares; confidence.py: how sure it is      |
| selection.py  | benchmarks choose the best checkpoint; vlmevalkit.py: files for VLMEvalKit  |
"""
