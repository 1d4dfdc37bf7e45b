"""Whitening: the same variance in every direction, so that no few of them drown what tells one text from another."""

import torch
from torch import Tensor


def whitening(states: Tensor, shrinkage: float = 0.01) -> tuple[Tensor, Tensor]:
    """Mean and map that take states to equal variance in all directions.

    Mean states of texts differ in few directions, which drown all that tells one director from another. Of all
    whitening maps this is the symmetric one, which moves the states least.

    Args:
        states: [N, D].
        shrinkage: share of the mean variance that is added in all directions, in (0, 1); it bounds those that N texts
            leave empty.

    Returns:
        [D] and [D, D] float32: (x - mean) @ map has about unit covariance over the N states.
    """
    if not len(states):
        return states.new_zeros(states.shape[1]), torch.eye(states.shape[1], device=states.device)
    mean = states.double().mean(dim=0)
    centred = states.double() - mean
    covariance = centred.T @ centred / len(states)
    floor = covariance.diagonal().mean().clamp(min=1e-12) * torch.eye(len(mean), dtype=mean.dtype, device=mean.device)
    variances, directions = torch.linalg.eigh((1 - shrinkage) * covariance + shrinkage * floor)
    return mean.float(), ((directions * variances**-0.5) @ directions.T).float()
