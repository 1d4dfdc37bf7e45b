import torch
import torch.nn.functional as F

from darec.model.injection import Injection


def injected(d: int = 4, width: int = 6) -> tuple[Injection, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return Injection(d, width, scale=0.5), torch.randn(3, d), torch.randn(3, d)


def test_item_receives_a_projection_of_normalised_embedding_and_state():
    injection, v, z = injected()
    both = torch.cat([v, z], dim=1)
    normalised = (both - both.mean(1, keepdim=True)) / (both.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    result = injection.at_items(v, z, torch.tensor([True, True, True]))
    torch.testing.assert_close(result, normalised @ injection.item.weight.T)


def test_user_receives_a_projection_of_the_normalised_state():
    injection, _, z = injected()
    result = injection.at_users(z, torch.tensor([True, True, True]))
    torch.testing.assert_close(result, F.layer_norm(z, (4,)) @ injection.user.weight.T)


def test_sequences_without_the_cf_path_receive_nothing():
    injection, v, z = injected()
    kept = torch.tensor([True, False, True])
    for result in (injection.at_items(v, z, kept), injection.at_users(z, kept)):
        assert result[1].tolist() == [0.0] * 6
        assert (result[[0, 2]].abs().amax(dim=1) > 0).all()


def test_injection_starts_at_the_scale_of_the_backbones_own_embeddings():
    torch.manual_seed(0)
    injection = Injection(64, 256, scale=0.02)
    kept = torch.ones(200, dtype=torch.bool)
    for result in (
        injection.at_items(torch.randn(200, 64), torch.randn(200, 64), kept),
        injection.at_users(torch.randn(200, 64), kept),
    ):
        assert 0.018 < result.std().item() < 0.022
