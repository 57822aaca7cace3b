"""Index and shards -> what a person looks at.

| file          | what it holds                                                         |
|---------------|-----------------------------------------------------------------------|
| finished.py   | a finished mixture, opened for reading; divided.py: its lines by id   |
| row_facts.py  | what the numbers need of each packed row, taken beside its shard      |
| stats.py      | every number of a mixture; index_counts.py, packed_counts.py: what it |
|               | counts; evenness.py: along its rows                                   |
| drawn.py      | which samples are looked into; texts.py: what is asked and answered   |
| card.py       | README.md, and the table that ends a build; croissant.py              |
| page.py       | report.html; plots.py: its plots; thumbnails.py: its contact sheets   |
| row_view.py   | a packed row as samples and spans                                     |
| show.py       | the terminal's views; diff.py: two mixtures side by side              |
"""
