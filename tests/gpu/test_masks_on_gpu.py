"""Masks under mixed precision: attention runs in a narrower type there than the mask was made in."""

import pytest
import torch

from darec.model.backbone import run_backbone, tiny_backbone

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU; torch sees none"),
]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "bert"])
def test_padding_that_may_look_at_nothing_stays_finite_and_changes_nothing(family, dtype):
    model = tiny_backbone(["Heat (1995)"], family)[0].to("cuda")
    embeds = torch.randn(2, 12, 64, generator=torch.Generator().manual_seed(0)).to("cuda")
    positions = torch.arange(12, device="cuda").expand(2, -1)
    mask = torch.ones(2, 12, 12, dtype=torch.bool, device="cuda").tril()
    mask[:, 8:] = False  # the last four tokens are padding
    with torch.no_grad(), torch.autocast("cuda", dtype):
        padded = run_backbone(model, embeds, mask, positions)
        alone = run_backbone(model, embeds[:, :8], mask[:, :8, :8], positions[:, :8])
    assert torch.isfinite(padded).all()
    torch.testing.assert_close(padded[:, :8].float(), alone.float(), rtol=0.05, atol=0.05)
