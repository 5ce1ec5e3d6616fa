"""TensorFlow Lite files in LiteRT (`ai-edge-litert`), on XNNPACK's kernels: a peer on TensorFlow's own quantized files.

Only classifiers that end in a softmax: LiteRT's answer are its probabilities as bytes.
"""

from pathlib import Path

import numpy as np

from smallcnn.model.probe import probe_image
from smallcnn.runtime import Net

_TOLERANCE = 0.02
"""Largest difference of a probability. LiteRT's are multiples of 1/256, and a step of the logits, by which roundings
differ, changes one by a sixth; the largest of the probe image are 0.1 to 0.2."""


class LiteRT:
    """A file in LiteRT with `threads` threads; its default resolver hands the layers to the XNNPACK delegate."""

    def __init__(self, file: Path, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        self._interpreter = Interpreter(
            str(file), num_threads=threads, experimental_op_resolver_type=OpResolverType.AUTO
        )
        self._interpreter.allocate_tensors()
        (self._input,), (self._output,) = (
            self._interpreter.get_input_details(),
            self._interpreter.get_output_details(),
        )
        self._image = probe_image(tuple(self._input["shape"][1:].tolist()))

    def run(self) -> np.ndarray:
        """Answers the probe image; probabilities as bytes (1, classes)."""
        self._interpreter.set_tensor(self._input["index"], self._image)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output["index"])

    def verify(self, net: Net) -> None:
        """Raises SystemExit unless the probabilities are those of `net`, which runs the same file imported."""
        scale, zero = self._output["quantization"]
        theirs = scale * (self.run()[0].astype(np.float64) - zero)
        logits = net.logits(self._image)[0].astype(np.float64)
        ours = np.exp(logits - logits.max())
        ours /= ours.sum()
        if not (np.abs(ours - theirs).max() <= _TOLERANCE and theirs[ours.argmax()] >= theirs.max() - _TOLERANCE):
            raise SystemExit(f"{net.name}: LiteRT gives other probabilities, off by {np.abs(ours - theirs).max():.2f}")
