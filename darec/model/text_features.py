"""Frozen text features: what a backbone, as it comes, knows of a text."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from darec.errors import BackboneError
from darec.model.backbone import quiet_transformers

_MAX_TOKENS = 128


@torch.inference_mode()
def encode_texts(texts: Sequence[str], backbone: str, batch_size: int = 64, device: str = "cpu") -> Tensor:
    """Mean of the last hidden states of each text, in the backbone's native attention, scaled to length 1.

    Args:
        texts: n texts, cut after 128 tokens.
        backbone: Hugging Face name, or a folder.
        batch_size: texts a forward pass; texts of like length go together.
        device: torch name.

    Returns:
        [n, F] float32, F the backbone's width, each row of L2 norm 1, on the CPU.

    Raises:
        BackboneError: the backbone or its tokenizer cannot be loaded.
    """
    tokenizer, model = load_encoder(backbone)
    model = model.to(device)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    features = torch.empty(len(texts), model.config.hidden_size)
    for first in range(0, len(order), batch_size):
        rows = order[first : first + batch_size]
        inputs = tokenizer(
            [texts[i] or " " for i in rows], padding=True, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt"
        ).to(device)
        states = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
        mask = inputs["attention_mask"][..., None].float()
        mean = (states.float() * mask).sum(1) / mask.sum(1).clamp(min=1)
        features[rows] = F.normalize(mean, dim=-1).cpu()
    return features


def load_encoder(backbone: str) -> tuple:
    """Tokenizer and model, in evaluation mode.

    Raises:
        BackboneError: either cannot be loaded.
    """
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(backbone)
            model = AutoModel.from_pretrained(backbone, dtype=torch.float32)
    except (OSError, ValueError, KeyError) as error:
        raise BackboneError(
            f"The backbone must be a Hugging Face name or a folder with a model and its tokenizer; got {backbone!r} "
            f"({type(error).__name__}). Check the name, the folder or the network."
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token  # masked anyway
    return tokenizer, model.eval()
