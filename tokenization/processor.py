"""The processor of a checkpoint: AutoProcessor's, and without torchvision one for texts and images.

SmolVLM's processor holds one for videos, which needs torchvision; images need nothing of it.
"""

import json
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any


def processor_of(folder: Path) -> Any:
    """What makes ids and crops of messages and images, as the folder says."""
    from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer

    if find_spec("torchvision") is not None:
        return AutoProcessor.from_pretrained(str(folder), trust_remote_code=False)
    from transformers.models.smolvlm.processing_smolvlm import SmolVLMProcessor

    class ImagesAlone(SmolVLMProcessor):
        """SmolVLMProcessor whose processor of videos is none."""

        def check_argument_for_proper_class(self, name: str, argument: Any) -> None:
            """Any will do."""

    settings = json.loads((folder / "processor_config.json").read_text())
    return ImagesAlone(
        AutoImageProcessor.from_pretrained(str(folder), backend="pil"),
        AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False),
        SimpleNamespace(num_frames=None, fps=None),
        image_seq_len=settings["image_seq_len"],
        chat_template=(folder / "chat_template.jinja").read_text(),
    )
