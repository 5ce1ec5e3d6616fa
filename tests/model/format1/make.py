"""Wrote the files in this folder with smallcnn 0.1 at commit 292f8b0, the last one that wrote format 1.

    git worktree add /tmp/format1 292f8b0
    PYTHONPATH=/tmp/format1/src:/tmp/format1/tests python make.py .

Later versions do not run this script. `answers.json` holds what that version said about each file: labels, ending,
facts, and for two images the logits of its plain definition and the probabilities that `classify` gave, by label.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from smallcnn.artifact import save
from smallcnn.probe import probe_image

from artifacts import artifact
from smallcnn import onnx, runtime
from smallcnn.compiler.compiling import compile_file
from smallcnn.reference import run

OUT = Path(sys.argv[1])
SOFTMAX = artifact(note="format 1", trained=True)
SIGMOID = replace(artifact(seed=1, note="format 1"), ending="sigmoid")
BLUE_FIRST = artifact(seed=2, note="format 1")
BLUE_FIRST = replace(BLUE_FIRST, preprocessing=replace(BLUE_FIRST.preprocessing, order="bgr", crop=1.0))

IMAGES = np.concatenate([probe_image((8, 8, 3)), probe_image((8, 8, 3))[:, ::-1, :, ::-1]])
"""Channels differ, so that blue first and red first do."""


def described(model, path):
    net = runtime.open(OUT / path)
    seen = [net.classify_prepared(image) for image in IMAGES]
    return {
        "labels": net.labels,
        "ending": net.ending,
        "facts": net.facts,
        "mult_adds": net.mult_adds,
        "logits": run(model.graph, model.weights, model.preprocessing.normalise(IMAGES)).tolist(),
        "probabilities": [dict(one.ranked) for one in seen],
    }


answers = {}
for name, model in (("softmax", SOFTMAX), ("sigmoid", SIGMOID), ("blue_first", BLUE_FIRST)):
    save(model, OUT / f"{name}.safetensors")
    onnx.export(model, OUT / f"{name}.logits.onnx")
    onnx.export(model, OUT / f"{name}.probabilities.onnx", probabilities=True)
    for end in ("safetensors", "logits.onnx", "probabilities.onnx"):
        answers[f"{name}.{end}"] = described(model, f"{name}.{end}")
compile_file(SOFTMAX, OUT / "softmax.so", target="x86-64-linux-sse41")
(OUT / "answers.json").write_text(json.dumps(answers, indent=1) + "\n")
