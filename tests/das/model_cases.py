"""Release variants, their flows, and all predictions of a model as a list: what tests of the whole model share."""

import torch

from das.config import release_mupots, release_panoptic
from das.flow import RealNVP
from das.recursive_update import update_dense
from das.release.weights import FLOW_NAMES

RELEASES = {"panoptic": release_panoptic, "mupots": release_mupots}


def release_flows():
    return {key: RealNVP(key[1]) for key in FLOW_NAMES.values()}


def everything(output):
    """All predictions as one list of tensors."""
    maps = [v for level in output.levels for v in vars(level).values()] + [update_dense(u) for u in output.updates]
    return [m for m in maps if m is not None]


def randomize(model):
    """Moves every parameter, so that nothing is 0 by its initial value."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model
