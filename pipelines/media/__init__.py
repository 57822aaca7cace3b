"""Bytes -> what is known of an image or a video; decoders run in child processes.

| file            | what it holds                                                       |
|-----------------|---------------------------------------------------------------------|
| images.py       | encoded image -> size, hash, contrast ...; pages of a PDF           |
| video.py        | videos -> frames; the only file that knows decord and PyAV          |
| container.py    | what a video file says of its own length                            |
| frame_folders.py| videos that are folders of images                                   |
| decoders.py     | the child process in which everything is decoded; pipes.py          |
"""
