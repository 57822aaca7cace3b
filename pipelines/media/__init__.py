"""Bytes -> what is known of an image or a video; decoders run in child processes.

| file            | what it holds                                                       |
|-----------------|---------------------------------------------------------------------|
| images.py       | encoded image -> size, hash, contrast ...; pages of a PDF           |
| video.py        | videos -> frames; the only file that knows PyAV                     |
| frames.py       | which frames are taken, and how one is kept                         |
| container.py    | which container a file is, and what it says of its own length       |
| frame_folders.py| videos that are folders of images                                   |
| decoders.py     | the child process in which everything is decoded                    |
| pipes.py        | what is said between worker and child                               |
| confinement.py  | what the child gives up: files, network, other processes            |
"""
