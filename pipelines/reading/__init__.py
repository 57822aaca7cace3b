"""Repository -> rows -> samples: which files there are, their parts, how a row arrives.

| file            | what it holds                                                       |
|-----------------|---------------------------------------------------------------------|
| files.py        | listings of a local folder, a hub repository, an fsspec URL         |
| hub.py          | the hub; the only file that reads it through `huggingface_hub`      |
| hub_cache.py    | what the hub's client left on this disk; hub_address.py, _requests  |
| parts.py        | a component -> its parts (which files, which rows); splitting.py    |
| annotations.py  | JSON, small and large -> rows, by index or by block; json_spans.py  |
| rows.py         | Parquet, compressed JSON lines, CSV -> rows                         |
| media_files.py  | a row's paths -> bytes, out of folders and archives                 |
| archives.py     | zips and tars, read in place; split_zip.py: zips cut into disks     |
| archive_order.py| rows in a tar's own order                                           |
| streams.py      | several files as one stream; compressed streams                     |
| ingest.py       | a part -> SAMPLE                                                    |
"""
