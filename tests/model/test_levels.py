from pathlib import Path

import numpy as np
import pytest
import torch

from darec.errors import RunError
from darec.model.backbone import save_backbone, tiny_backbone
from darec.model.levels import quantized_maps, read_map
from darec.model.quantization import save_four_bit

TEXTS = ["a lighthouse in the snow", "two umbrellas and a kite", "the last harbour"]


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def folders(request, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, torch.Tensor]]:
    """A tiny backbone, the same in 4 bits, and its weights as [out, in]."""
    folder = tmp_path_factory.mktemp(request.param)
    model, tokenizer = tiny_backbone(TEXTS, request.param)
    save_backbone(model, tokenizer, folder / "whole")
    save_four_bit(model, folder / "four")
    turned = request.param == "gpt2"
    weights = {name: tensor.T if turned else tensor for name, tensor in model.state_dict().items() if tensor.dim() == 2}
    return folder / "whole", folder / "four", weights


def test_every_map_is_read_beside_what_it_was_made_from(folders):
    whole, four, weights = folders
    names = quantized_maps(four)
    assert len(names) == (14 if "layers" in names[0] else 8)  # of two layers
    for name in names:
        read = read_map(four, name, whole)
        np.testing.assert_array_equal(read.before, weights[name].numpy())
        assert 0.05 < read.relative_error < 0.15  # NF4 on normally distributed weights


def test_decoded_weights_lie_on_the_levels_of_their_block(folders):
    _, four, _ = folders
    read = read_map(four, quantized_maps(four)[0])
    assert read.before is None
    assert np.isnan(read.relative_error)
    assert read.levels.shape == (16,)
    assert (np.diff(read.levels) > 0).all()
    assert read.levels[0] == -1
    assert read.levels[-1] == 1
    blocks = read.after.reshape(-1, 64)
    scaled = blocks / np.abs(blocks).max(axis=1, keepdims=True)
    assert np.abs(scaled[:, :, None] - read.levels).min(axis=2).max() < 1e-6


def test_a_whole_backbone_or_another_name_is_refused(folders):
    whole, four, _ = folders
    with pytest.raises(RunError, match="holds no 4-bit backbone"):
        quantized_maps(whole)
    with pytest.raises(RunError, match="holds no map attention in four bits"):
        read_map(four, "attention")
