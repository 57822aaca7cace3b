"""Models that are served: what an OpenAI-compatible endpoint says of the samples of a mixture.

| file            | what it holds                                                         |
|-----------------|-----------------------------------------------------------------------|
| words.py        | the words of the command                                              |
| judge.py        | the run: who is asked, what is left                                   |
| facts.py        | what came of it: counts, the table that a mixture reads               |
| questions.py    | a sample and a prompt -> one request                                  |
| prompts.py      | prompt files; a model's text -> ratings, or why it gives none          |
| answers.py      | what was answered, kept so that it is paid for once                    |
| endpoint.py     | one request over HTTP: tries, pauses, refusals                         |
| budget.py       | how many requests and tokens may still be spent                        |
| finevision.yaml | the four axes of FineVision, in words of our own                       |
"""
