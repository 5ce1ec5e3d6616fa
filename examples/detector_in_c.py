"""From photographs with boxes to a C program that finds the objects: three minutes on one core for 128 raccoons.

python examples/detector_in_c.py PHOTOS FILE [EPOCHS]

PHOTOS is a folder or an archive of images with boxes, FILE a trained classifier or detector to start from: see
docs/detection.md. The program, detector.c next to this script, is built by the system's C compiler, or else by ziglang.
"""

import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

import smallcnn
from smallcnn.model.kinds import read
from smallcnn.train.run import train
from smallcnn.transform.limits import Limits, limited

PROGRAM = Path(__file__).with_name("detector.c")
LIMITS = Limits(threshold=0.3, most=20)


def build(detector: Path, folder: Path) -> Path:
    """Compiles the detector, and the program with it, into `folder`."""
    model = read(detector)
    smallcnn.compile(replace(model, graph=limited(model.graph, LIMITS)), folder / "finder.o")
    shutil.copy(PROGRAM, folder)
    compiler = ["cc"] if shutil.which("cc") else [sys.executable, "-m", "ziglang", "cc"]
    subprocess.run([*compiler, PROGRAM.name, "finder.o", "-pthread", "-o", "detector"], cwd=folder, check=True)
    return folder / "detector"


def main(photos: str, file: str, epochs: str = "40") -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run = train(read(file), photos, folder / "run", epochs=int(epochs), threads=1)
        program = build(run.best, folder)
        net = smallcnn.open(run.best, limits=LIMITS)
        unseen = run.source.splits["val"]
        same = 0
        for name, image in zip(unseen.names, unseen.images, strict=True):
            prepared = net.preprocessing.prepare(image)
            (folder / "image.rgb").write_bytes(prepared.pixels.tobytes())
            said = subprocess.run([program, "image.rgb"], cwd=folder, capture_output=True, text=True, check=True).stdout
            objects = [[float(number) for number in line.split()] for line in said.splitlines()]
            for number, score, *sides in objects:
                left, top, right, bottom = prepared.seen.boxes_to_image(sides)
                print(
                    f"{name}: {net.labels[int(number)]} {score:.0%} at {left:.0f},{top:.0f} to {right:.0f},{bottom:.0f}"
                )
            wanted = [(net.labels.index(one.label), one.score) for one in net.answer(image).found]
            same += len(objects) == len(wanted) and np.allclose([one[:2] for one in objects], wanted, atol=1e-3)
        best = max(epoch.best("map50") for epoch in run.history)
        print(f"AP50 {best:.1%}; the C program finds the same as ONNX Runtime in {same} of {len(unseen)} images")


if __name__ == "__main__":
    main(*sys.argv[1:])
