"""What a converted file (.onnx, compiled) says of itself: text by name.

    smallcnn.format          version of this layout
    smallcnn.model           the network's name
    smallcnn.mult_adds       its cost, for tools that report speed
    smallcnn.labels          JSON list, one name per class
    smallcnn.preprocessing   JSON object, see `Preprocessing`
    smallcnn.facts           JSON object: where the weights come from
    smallcnn.output          "logits" or "probabilities"
    smallcnn.probe           JSON list: the exact answer to `probe.probe_image`, to check any engine with
"""

import json

import numpy as np

from smallcnn.artifact import FORMAT, Artifact
from smallcnn.cost import profile


def describe(artifact: Artifact, output: str, answer: np.ndarray) -> dict[str, str]:
    """The entries for a file that ends in `output` and has to give `answer` to the probe picture."""
    return {
        "smallcnn.format": FORMAT,
        "smallcnn.model": artifact.graph.name,
        "smallcnn.mult_adds": str(profile(artifact.graph).mult_adds),
        "smallcnn.labels": json.dumps(artifact.labels),
        "smallcnn.preprocessing": artifact.preprocessing.to_json(),
        "smallcnn.facts": json.dumps(artifact.facts),
        "smallcnn.output": output,
        "smallcnn.probe": json.dumps([float(f"{value:.9g}") for value in answer]),
    }
