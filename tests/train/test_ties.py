"""Training that keeps zeros and shared values: the gradient of a value is the mean of its weights' gradients."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from smallcnn.ir.builder import Builder  # noqa: E402
from smallcnn.module import to_module  # noqa: E402
from smallcnn.train.ties import Ties  # noqa: E402
from smallcnn.transform.share.hashed import Hashing, hashing_of  # noqa: E402


def module(first, second):
    g = Builder(input=(6, 6, 3))
    x = g.conv(g.input, 8, kernel=3, name="conv")
    made = to_module(g.graph(g.dense(g.global_pool(x), 4, name="fc"), features=x, name="two"))
    with torch.no_grad():
        made.conv.weight.copy_(first(made.conv.weight))
        made.fc.weight.copy_(second(made.fc.weight))
    return made


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_a_step_of_projected_gradients(optimizer):
    shared = module(lambda w: torch.round(w * 4) / 4, lambda w: w * (w.abs() > w.abs().median()))
    before = {name: value.detach().clone() for name, value in shared.state_dict().items()}
    ties, optimize = Ties(shared), optimizer(shared.parameters(), lr=0.01)
    torch.manual_seed(0)
    for step in range(3):
        optimize.zero_grad()
        shared(torch.randn(5, 3, 6, 6)).square().sum().backward()
        plain = shared.conv.weight.grad.clone()
        ties.project()
        if not step:
            for value in before["conv.weight"].unique():
                own = before["conv.weight"] == value
                wanted = 0.0 if value == 0 else plain[own].mean().item()
                torch.testing.assert_close(shared.conv.weight.grad[own], torch.full((int(own.sum()),), wanted))
        optimize.step()
        ties.restore()
    after = shared.state_dict()
    for value in before["conv.weight"].unique():
        moved = after["conv.weight"][before["conv.weight"] == value].unique()
        assert len(moved) == 1
        assert (moved.item() == 0) == (value.item() == 0)
    assert torch.equal(after["fc.weight"] == 0, before["fc.weight"] == 0)
    assert not torch.equal(after["fc.weight"], before["fc.weight"])


def test_a_hashed_layer_moves_by_the_mean_of_its_signed_gradients():
    """Chen et al. 2015, equation 12, over the number of weights; the weights stay hashed bit by bit."""
    hashing = Hashing(values=30, seed=9)
    layer = module(lambda w: torch.from_numpy(hashing.expand(hashing.project(w.numpy()), tuple(w.shape))), lambda w: w)
    ties, optimize = Ties(layer), torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    places, signs = hashing.places(layer.conv.weight.numel())
    torch.manual_seed(0)
    for _ in range(3):
        optimize.zero_grad()
        layer(torch.randn(5, 3, 6, 6)).square().sum().backward()
        plain = layer.conv.weight.grad.numpy().ravel() * signs
        ties.project()
        moved = layer.conv.weight.grad.numpy().ravel() * signs
        for value in set(places):
            np.testing.assert_allclose(moved[places == value], plain[places == value].mean(), rtol=1e-5, atol=1e-7)
        optimize.step()
        ties.restore()
        made, _ = hashing_of(layer.conv.weight.detach().numpy())
        assert made == hashing
