"""What every stage runs on.

| file         | what it holds                                                          |
|--------------|------------------------------------------------------------------------|
| tasks.py     | a stage, a task of it, and how one is done: whole, under its name      |
| runner.py    | many tasks, here or on Ray: the only file here that knows Ray          |
| tables.py    | the only Arrow IO: a table becomes a file whole or not at all          |
| progress.py  | how far a run is                                                       |
| timings.py   | what it took                                                           |
| versions.py  | the packages whose behaviour shows in the result                       |
"""
