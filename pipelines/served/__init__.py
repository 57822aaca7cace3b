"""Models that are asked about the samples of a mixture: what they say of them, what they write.

| file         | what it holds                                                          |
|--------------|------------------------------------------------------------------------|
| words.py     | the words of the commands; help.py their help                          |
| judge.py     | `judge`; facts.py: the table of ratings                                |
| rewrite.py   | `rewrite`, and the table of texts                                      |
| run.py       | who is asked, what is left; counts.py: what came of it                 |
| questions.py | a sample and a prompt -> one request                                   |
| prompts.py   | prompt files                                                           |
| replies.py   | what is asked for; a model's text -> scores or texts, or why there are |
|              | none                                                                   |
| answers.py   | what was answered, kept so that it is paid for once                    |
| engines.py   | who answers; batches.py, by_transformers.py, by_vllm.py: models run    |
|              | here                                                                   |
| endpoint.py  | one request over HTTP: tries, pauses, refusals                         |
| budget.py    | how many requests and tokens may still be spent                        |
| *.yaml       | prompts: finevision rates; the others rewrite                          |
"""
