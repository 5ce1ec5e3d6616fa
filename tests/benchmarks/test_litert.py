"""LiteRT as a peer: the answers of TensorFlow's own file, compared with those of the file imported."""

from dataclasses import replace

import pytest

pytest.importorskip("ai_edge_litert")

from litert import LiteRT
from shared_files import shared
from smallcnn import runtime
from smallcnn.checkpoints.importing import import_checkpoint


def test_other_probabilities_are_refused():
    file = shared("weights/mobilenet_v1_0.25_128_quant.tflite")
    model = import_checkpoint([file], keep_background=True)
    peer = LiteRT(file, 1)
    assert peer.run().shape == (1, 1001)
    peer.verify(runtime.of(model, threads=1))
    bias = next(name for name in reversed(model.weights) if name.endswith("bias"))
    other = replace(model, weights={**model.weights, bias: model.weights[bias][::-1].copy()})
    with pytest.raises(SystemExit, match="LiteRT gives other probabilities, off by"):
        peer.verify(runtime.of(other, threads=1))
