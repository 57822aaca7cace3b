"""What every stage runs on.

| file         | what it holds                                                          |
|--------------|------------------------------------------------------------------------|
| runner.py    | tasks, in this process or on Ray: the only file here that knows Ray    |
| tables.py    | the only Arrow IO: a table becomes a file whole or not at all          |
| progress.py  | how far a run is                                                       |
| timings.py   | what it took                                                           |
| versions.py  | the packages whose behaviour shows in the result                       |
"""
