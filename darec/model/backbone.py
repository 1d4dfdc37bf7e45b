"""The language model underneath: loading, its random twin, a tiny one for first steps, and the names of its parts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as transformers_logging

from darec.errors import BackboneError
from darec.model.quantization import is_four_bit, load_four_bit

Family = Literal["llama", "qwen3", "gpt2", "bert"]
Place = Literal["attention", "mlp"]
LINEAR_MAPS = (nn.Linear, Conv1D)
# What an attention logit gets where the mask forbids: exp of it is 0, yet it is finite in every float type, so that a
# row with nothing to look at does not become NaN.
UNSEEN = -3e4


def load_backbone(
    name_or_dir: str | Path, *, random_init: bool = False, seed: int = 0, device: str = "cpu"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model and its tokenizer; an encoder such as BERT is run as a decoder.

    Args:
        name_or_dir: a Hugging Face hub name, or a folder; a folder that holds NF4 weights is read as such.
        random_init: keep the architecture and the tokenizer, draw the weights afresh.
        seed: of weights that are drawn: all of them, or a head that the checkpoint lacks.
        device: a torch device.

    Returns:
        the model in evaluation mode, frozen, in float32 (NF4 maps on a GPU aside), and the tokenizer.

    Raises:
        BackboneError: it cannot be found or read, or cannot run as a causal language model.
    """
    path = Path(name_or_dir)
    if not path.is_dir() and not _can_be_on_the_hub(str(name_or_dir)):
        raise BackboneError(f"There is no folder {str(name_or_dir)!r}. Give one with a language model, or a hub name.")
    with quiet_transformers():
        try:
            tokenizer = AutoTokenizer.from_pretrained(name_or_dir)
            if path.is_dir() and is_four_bit(path) and not random_init:
                model = load_four_bit(path, device)
            else:
                config = AutoConfig.from_pretrained(name_or_dir)
                config.is_decoder = True
                if hasattr(config, "quantization_config"):  # weights that are drawn afresh are not in 4 bits
                    del config.quantization_config
                with torch.random.fork_rng():
                    torch.manual_seed(seed)
                    if random_init:
                        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
                    else:
                        model = AutoModelForCausalLM.from_pretrained(name_or_dir, config=config, dtype=torch.float32)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[0]
            raise BackboneError(
                "The backbone must be a Hugging Face causal language model by hub name or folder; "
                f"{str(name_or_dir)!r} could not be loaded: {reason}"
            ) from error
    model = model.to(device).eval().requires_grad_(False)
    if not _obeys_masks(model):
        raise BackboneError(
            "The backbone must read word vectors as wide as its layers, and let a mask alone say who sees whom; "
            f"{str(name_or_dir)!r} ({model.config.model_type}) does not. Choose a Llama, Qwen, GPT-2 or BERT, say."
        )
    return model, tokenizer


def save_backbone(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a backbone without adapters, and its tokenizer, so that `load_backbone` reads them."""
    with quiet_transformers():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def tiny_backbone(
    texts: Sequence[str], family: Family = "llama", seed: int = 0
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A small random backbone (width 64, 2 layers) with a byte-level BPE tokenizer learned from `texts`.

    It knows no language; it exists for tests and for first steps without a download.
    """
    tokenizer = learn_tokenizer(texts, vocabulary=1024)
    shape = {"vocab_size": len(tokenizer), "bos_token_id": tokenizer.bos_token_id, "pad_token_id": None}
    if family == "gpt2":
        shape |= {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512}
    else:
        shape |= {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
        shape |= {"max_position_embeddings": 512}
    if family == "qwen3":
        shape |= {"num_key_value_heads": 2, "head_dim": 16}
    elif family == "bert":
        shape |= {"is_decoder": True, "pad_token_id": tokenizer.pad_token_id}
    config = AutoConfig.for_model(family, **shape)
    config.tie_word_embeddings = True
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model.eval().requires_grad_(False), tokenizer


def learn_tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with at most `vocabulary` tokens, learned from `texts`; any text can be read by it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_max_length=512
    )


def run_backbone(model: PreTrainedModel, inputs_embeds: Tensor, mask: Tensor, position_ids: Tensor) -> Tensor:
    """The last hidden states of one forward pass.

    Args:
        inputs_embeds: [R, T, D] float.
        mask: [R, T, T] bool; true where a query (second to last) may look at a key (last).
        position_ids: [R, T] int64.

    Returns:
        [R, T, D]; rows that may look at nothing are finite.
    """
    additive = torch.zeros_like(mask, dtype=inputs_embeds.dtype).masked_fill_(~mask, UNSEEN)[:, None]
    output = model.base_model(
        inputs_embeds=inputs_embeds, attention_mask=additive, position_ids=position_ids, use_cache=False
    )
    return output.last_hidden_state


@torch.no_grad()
def _obeys_masks(model: PreTrainedModel) -> bool:
    """Whether a changed last word changes itself and the first word, which alone is let see it, and nothing else.

    Architectures with a fixed order of reading, or with windows of their own, fail or would ignore the mask in silence.
    """
    words = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 5]], device=model.device)
    inputs = model.get_input_embeddings()(words)
    mask = torch.eye(4, dtype=torch.bool, device=model.device).repeat(2, 1, 1)
    mask[:, 0, 3] = True
    positions = torch.arange(4, device=model.device).repeat(2, 1)
    try:
        states = run_backbone(model, inputs, mask, positions).float()
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError):
        return False
    change = (states[0] - states[1]).abs().amax(dim=-1)
    obeys = change[[0, 3]].min() > 100 * change[[1, 2]].max()
    return bool(obeys) and inputs.shape[-1] == model.config.hidden_size


def _can_be_on_the_hub(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def max_positions(model: PreTrainedModel) -> int:
    """How many tokens one sequence may have."""
    return int(getattr(model.config, "max_position_embeddings", 0) or getattr(model.config, "n_positions", 0) or 10**6)


def transformer_layers(model: nn.Module, num_layers: int) -> tuple[str, nn.ModuleList]:
    """The name and the list of the backbone's layers: its first module list of that length.

    Raises:
        BackboneError: there is none.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == num_layers:
            return name, module
    raise BackboneError(f"The backbone must keep its {num_layers} layers in one module list; {type(model)} has none.")


def linear_maps(model: PreTrainedModel, place: Place) -> list[list[str]]:
    """For each layer, the full names of its linear maps in attention or in the MLP."""
    prefix, layers = transformer_layers(model, model.config.num_hidden_layers)
    names: list[list[str]] = []
    for number, layer in enumerate(layers):
        maps = [name for name, module in layer.named_modules() if isinstance(module, LINEAR_MAPS)]
        names.append([f"{prefix}.{number}.{name}" for name in maps if _place(name) == place])
    return names


def _place(name: str) -> Place:
    """Every architecture names its attention so; what else is linear in a layer belongs to the MLP."""
    return "attention" if "attn" in name or "attention" in name else "mlp"


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars, and no warning about a head that the checkpoint lacks: ours is trained."""
    verbosity = transformers_logging.get_verbosity()
    shows_progress = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if shows_progress:
            transformers_logging.enable_progress_bar()
