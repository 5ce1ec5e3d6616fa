"""Comparing a network with its public definition, as tests/public_definitions/make.py stored it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from public_weights import public_image, public_weight
from smallcnn.ir.graph import Graph
from smallcnn.module import to_module


def public_definition(name: str) -> dict[str, Any]:
    """origin, call, resolution, image_seed, state as [key, shape] in order, and every tenth logit."""
    return json.loads((Path(__file__).parent / "public_definitions" / f"{name}.json").read_text())


def check_in_order(graph: Graph, public: dict[str, Any]) -> None:
    """Lays the public tensors onto the graph's, in order, and compares the logits; float64 on both sides."""
    weights = {}
    for (name, weight), (key, shape) in zip(graph.weights.items(), public["state"], strict=True):
        value = public_weight(key, tuple(shape))
        if len(weight.shape) == 2 and value.shape[2:] == (1, 1):  # a 1x1 convolution of pooled features
            value = value[:, :, 0, 0]
        assert value.shape == weight.shape, f"{name} {weight.shape} is not {key} {shape}"
        weights[name] = value
    image = torch.from_numpy(public_image(public["resolution"], public["image_seed"])).double()
    with torch.no_grad():
        logits = to_module(graph, weights).double().eval()(image)[0].numpy()
    want = np.array(public["logits"])
    np.testing.assert_allclose(logits[::10], want, rtol=0, atol=1e-8 * np.abs(want).max())  # stored to 9 digits
