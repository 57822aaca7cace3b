"""A finished mixture in the formats of other trainers.

| file             | what it holds                                                       |
|------------------|---------------------------------------------------------------------|
| folder.py        | the whole export, resumed and claimed; the preview of a push        |
| conversations.py | shards -> records: messages, images, seconds, in the shards' order  |
| files.py         | records -> Parquet or tar                                           |
| card.py          | its README.md                                                       |
"""
