"""Writers of the quickstart's repositories: one function per dataset repository.

Each takes the repository's folder and the share of rows to make, writes its files, and returns
(rows per subset, the rows that are bad on purpose).
"""

from collections.abc import Callable

from quickstart_data import cauldron, documents, formulas, llava, text, videos
from quickstart_data.files import Planted

Writer = Callable[..., tuple[dict[str, int], list[Planted]]]

REPOSITORIES: dict[str, Writer] = {
    "HuggingFaceM4/the_cauldron": cauldron.write,
    "HuggingFaceM4/Docmatix": documents.write,
    "andito/mathwriting-google": formulas.write,
    "lmms-lab/LLaVA-Video-178K": videos.write,
    "lmms-lab/M4-Instruct-Data": llava.write_multi_image,
    "Xkev/LLaVA-CoT-100k": llava.write_reasoning,
    "HuggingFaceTB/smoltalk": text.write,
}

__all__ = ["REPOSITORIES", "Planted", "Writer"]
