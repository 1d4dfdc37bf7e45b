"""Attention weights of a model that other threads are using.

Fast attention (SDPA) gives no weights, and switching the shared model to slow attention would switch it for everyone.
So a forward pass that records runs through a second set of module objects over the same weights, hooks and buffers,
made in milliseconds, whose config names an attention function that records. What is recorded goes into a record of the
caller's own, found by a `ContextVar`: nothing is stored on modules.
"""

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PretrainedConfig

from darec.errors import BackboneError
from darec.model.recommender import DarecModel

_NAME = "darec_recorded"
_Record = dict[nn.Module, Tensor]  # attention module -> [R, H, T, T], in the order of the layers
_RECORD: ContextVar[_Record] = ContextVar("darec_attention_record")
_Module = TypeVar("_Module", bound=nn.Module)


@contextmanager
def attention_recorded(model: DarecModel) -> Iterator[tuple[DarecModel, _Record]]:
    """Yield a second view of the model and the record that its next forward pass fills.

    Args:
        model: shared; it is read, never changed.

    Yields:
        The view, which computes what the model computes; and each layer's attention the first time that it runs.

    Raises:
        BackboneError: the block ends and not every layer has given its weights.
    """
    backbone = model.backbone
    config = copy.deepcopy(backbone.config)
    config._attn_implementation = _NAME
    view = _shared(model)
    view._modules = {**model._modules, "backbone": _view(backbone, backbone.config, config)}
    view.__dict__["encode_texts"] = model.encode_texts  # encoding an unseen title is a pass of its own, not recorded
    record: _Record = {}
    token = _RECORD.set(record)
    try:
        yield view, record
    finally:
        _RECORD.reset(token)
    if len(record) != config.num_hidden_layers:
        raise BackboneError(
            f"To draw attention, each of the backbone's {config.num_hidden_layers} layers must give its weights; "
            f"{config.model_type} gives {len(record)}. Choose a Llama, Qwen, GPT-2 or BERT, say."
        )


def stack_layers(record: _Record) -> np.ndarray:
    """[L, H, T, T] float32: the attention of the first row of the batch."""
    return torch.stack([weights[0] for weights in record.values()]).float().cpu().numpy()


def _shared(module: _Module) -> _Module:
    """A new module object over the same contents."""
    view: _Module = object.__new__(type(module))
    view.__dict__.update(module.__dict__)
    return view


def _view(module: _Module, old: PretrainedConfig, new: PretrainedConfig) -> _Module:
    """New module objects, down to the leaves, with `new` where there was `old`."""
    view = _shared(module)
    if view.__dict__.get("config") is old:
        view.__dict__["config"] = new
    view._modules = {name: child and _view(child, old, new) for name, child in module._modules.items()}
    return view


def _attend(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """The architecture's own slow attention, which knows its scaling and its groups of heads; the weights are kept."""
    output, weights = sys.modules[type(module).__module__].eager_attention_forward(module, *args, **kwargs)
    _RECORD.get().setdefault(module, weights)  # the first run: measuring an adapter's contribution runs layers again
    return output, weights


AttentionInterface.register(_NAME, _attend)
