"""Our kernels in several processes: their norms and gradients are those of all images together."""

import copy

import pytest
import torch
from torch import nn

from networks import every_op
from processes import together
from smallcnn.errors import CompileError
from smallcnn.module import to_module
from smallcnn.train.distributed import gradients_later, joined, wrap
from smallcnn.train.fast import accelerate
from smallcnn.train.fast.native import library

try:
    library()
except CompileError as error:
    pytest.skip(str(error), allow_module_level=True)

# micro-batches of images 0-5, 5-10 and 10-15: what each process has of them; the third has none of the first two
SHARES = [[(0, 2), (5, 5), (10, 12)], [(2, 5), (5, 10), (12, 13)], [(5, 5), (10, 10), (13, 15)]]


def nothing(module):
    """All layers learn."""


def frozen_norms(module):
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()


def head_only(module):
    frozen_norms(module)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name.startswith("classifier"))


def some_weights(module):
    for parameter in list(module.parameters())[:4]:
        parameter.requires_grad_(False)


def given():
    """A network, images, and weights of the sum of outputs that is differentiated."""
    torch.manual_seed(1)
    module = to_module(every_op())
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(layer.weight, 1, 0.3)
            nn.init.normal_(layer.bias)
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 2)
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    return module, torch.randn(15, 3, 9, 8) + 3, torch.randn(15, 5)


def found(module):
    tensors = {f"{name}'s gradient": p.grad for name, p in module.named_parameters() if p.grad is not None}
    return {name: tensor.clone() for name, tensor in (tensors | dict(module.named_buffers())).items()}


def steps(out, change, with_kernels):
    """A head-only step, as at the start of some runs, then `change` and the gradient of three micro-batches."""
    with joined("cpu") as (ranks, _):
        module, x, weights = given()
        network = wrap(module, accelerate(module) if with_kernels else None)
        head_only(module)
        network(x[:2]).sum().backward()
        module.train().zero_grad()
        for parameter in module.parameters():
            parameter.requires_grad_()
        change(module)
        for first, last in SHARES[ranks.number]:
            loss = ranks.count * (network(x[first:last]) * weights[first:last]).sum()
            if last < 11:
                with gradients_later(network):
                    loss.backward()
            else:
                loss.backward()
        mine = found(module)
        for every in ranks.gather(mine):
            assert all(torch.equal(every[name], mine[name]) for name in mine)
        if ranks.first:
            torch.save(mine, out)


@pytest.mark.parametrize("change", [nothing, frozen_norms, head_only, some_weights])
def test_gradients_and_statistics_are_those_of_all_images_together(tmp_path, change):
    """As far from a single process in float64 as torch's layers are in float32 in the same processes, or 2e-5."""
    module, x, weights = given()
    change(module)
    exact = copy.deepcopy(module).double()
    for first, last in [(0, 5), (5, 10), (10, 15)]:
        (exact(x[first:last].double()) * weights[first:last]).sum().backward()
    want = found(exact)
    ours, again, theirs = (tmp_path / name for name in ("ours", "again", "theirs"))
    together(tmp_path, 3, steps, ours, change, True)
    together(tmp_path, 3, steps, again, change, True)
    together(tmp_path, 3, steps, theirs, change, False)
    ours, again, theirs = map(torch.load, (ours, again, theirs))
    assert want.keys() == ours.keys()
    assert all(torch.equal(ours[name], again[name]) for name in ours)
    for name, tensor in want.items():
        off, allowed = (ours[name] - tensor).abs().max(), (theirs[name] - tensor).abs().max()
        assert off <= 2e-5 * tensor.abs().max() + 4 * allowed, f"{name}: {off:.1e}, torch's layers {allowed:.1e}"
        assert allowed <= 1e-3 * tensor.abs().max().clamp(min=1e-2), name
