"""The browser's example, examples/browser: in Node, on pixels, as Node has no canvas."""

import base64
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("halide")
pytest.importorskip("ziglang")

from artifacts import artifact
from compiled_networks import model_of
from networks import detector, random_weights, tiny
from smallcnn.compiler.compiling import compile_file
from smallcnn.image.fit import Preprocessing
from smallcnn.model.model import Model
from smallcnn.reference import floating
from smallcnn.tasks.attributes import Attributes
from smallcnn.tasks.classification import Classification
from smallcnn.tasks.detection import Detection

FOLDER = Path(__file__).parents[2] / "examples" / "browser"
SCRIPT = """
import { readFileSync } from "fs";
import { load, prepared } from MODULE;
const asked = JSON.parse(readFileSync(0));
const image = { ...asked.image, data: new Uint8ClampedArray(Buffer.from(asked.image.data, "base64")) };
const out = {};
if (asked.file) {
    const net = await load(readFileSync(asked.file));
    const { pixels } = prepared(image, net.metadata.preprocessing);
    const outputs = Object.entries(net.run(pixels)).map(([name, values]) => [name, [...values]]);
    Object.assign(out, { answer: net.answer(image), error: net.error(), outputs: Object.fromEntries(outputs) });
}
out.prepared = asked.preprocessing.map((one) => {
    const { pixels, seen } = prepared(image, one);
    return { pixels: [...pixels], seen };
});
console.log(JSON.stringify(out));
"""
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (67, 90, 3), np.uint8))
pytestmark = pytest.mark.skipif(not shutil.which("node"), reason="needs node")


def in_node(folder, image=NOISE, *, file=None, preprocessing=()):
    script = folder / "script.mjs"
    script.write_text(SCRIPT.replace("MODULE", json.dumps(str(FOLDER / "smallcnn.js"))))
    asked = {
        "file": str(file) if file else None,
        "image": {
            "width": image.width,
            "height": image.height,
            "data": base64.b64encode(image.convert("RGBA").tobytes()).decode(),
        },
        "preprocessing": [json.loads(one.to_json()) for one in preprocessing],
    }
    done = subprocess.run(
        ["node", script], input=json.dumps(asked), capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


HALF = (0.5,) * 3


@pytest.mark.parametrize("scale", [1, 0.3], ids=["larger", "smaller"])
def test_images_are_fitted_as_in_training(tmp_path, scale):
    image = NOISE.resize((round(90 * scale), round(67 * scale)))
    wanted = [
        Preprocessing((24, 32), HALF, HALF),
        Preprocessing((56, 40), HALF, HALF, crop=1.0, interpolation="lanczos"),
        Preprocessing((23, 31), HALF, HALF, fit="stretch", crop=0.7, interpolation="bicubic"),
        Preprocessing((61, 40), (0.2, 0.4, 0.9), HALF, fit="letterbox"),
        Preprocessing((40, 61), (0.2, 0.4, 0.9), HALF, fit="letterbox", crop=0.9, order="bgr"),
        Preprocessing((28, 28), (0.5,), (0.5,)),
    ]
    for one, got in zip(wanted, in_node(tmp_path, image, preprocessing=wanted)["prepared"], strict=True):
        want = one.prepare(image)
        pixels = np.array(got["pixels"]).reshape(want.pixels.shape)
        np.testing.assert_allclose(pixels, want.pixels, rtol=0, atol=1)
        left, top, right, bottom = want.seen.box
        np.testing.assert_allclose([*got["seen"]["x"], *got["seen"]["y"]], [left, right, top, bottom], atol=1e-6)


def judged(folder, model):
    """What the example says of the noise, and what smallcnn says of the same outputs."""
    compile_file(model, folder / "net.wasm", target="browser")
    got = in_node(folder, file=folder / "net.wasm")
    prepared = model.preprocessing.prepare(NOISE)
    outputs = {
        name: np.array(values, tensor.number).reshape(tensor.shape)
        for (name, tensor), values in zip(model.graph.results.items(), got["outputs"].values(), strict=True)
    }
    return got, model.task.answer(outputs, prepared.seen), outputs


@pytest.mark.parametrize("ending", ["softmax", "sigmoid", "none"])
def test_a_classifier(tmp_path, ending):
    model = artifact()
    model = replace(model, task=Classification(model.labels, ending))
    found, want, outputs = judged(tmp_path, model)
    got = found["answer"]
    assert found["error"] < 1e-5
    assert [one["label"] for one in got] == [label for label, _ in want.ranked]
    np.testing.assert_allclose([one["probability"] for one in got], [value for _, value in want.ranked], rtol=1e-5)
    pixels = model.preprocessing.prepare(NOISE).pixels[None]
    definition = floating.answer(model.graph, model.weights, model.preprocessing.normalise(pixels))
    (logits,) = outputs.values()
    np.testing.assert_allclose(logits, definition[0], rtol=0, atol=0.02)  # some pixels are one level apart


def test_attributes(tmp_path):
    model = artifact()
    one, two, three = model.labels
    model = replace(model, task=Attributes(model.labels, {"which": (one, two)}))
    found, want, _ = judged(tmp_path, model)
    got = found["answer"]
    assert [each["label"] for each in got] == [label for label, _ in want.ranked]
    assert {each["label"]: each.get("question") for each in got} == {one: "which", two: "which", three: None}


def test_a_detector(tmp_path):
    graph = detector()
    half = Preprocessing((16, 24), HALF, HALF, fit="letterbox")
    model = Model(graph, random_weights(graph), Detection(("a", "b", "c", "d")), half)
    found, want, _ = judged(tmp_path, model)
    got = found["answer"]
    assert len(got) > 3
    assert found["error"] is None
    assert [one["label"] for one in got] == [want.labels[number] for number in want.classes]
    boxes = [[one[side] for side in ("left", "top", "right", "bottom")] for one in got]
    np.testing.assert_allclose(boxes, want.boxes, rtol=0, atol=1e-4)


def test_what_is_no_network_is_refused(tmp_path):
    compile_file(model_of(tiny()), tmp_path / "net.wasm", target="browser")
    script = tmp_path / "wrong.mjs"
    script.write_text(
        f"import {{ load }} from {json.dumps(str(FOLDER / 'smallcnn.js'))};"
        'import { readFileSync } from "fs";'
        'const net = await load(readFileSync("net.wasm"));'
        "try { net.run(new Uint8Array(3)); } catch (error) { console.log(error.message); }"
        "const empty = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]);"
        "await load(empty).catch((error) => console.log(error.message));"
    )
    done = subprocess.run(["node", script], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.splitlines() == ["needs 8 x 8 x 3 bytes, not 3", "no network compiled by smallcnn"]


def test_the_page_uses_the_module():
    page = (FOLDER / "index.html").read_text()
    assert 'from "./smallcnn.js"' in page
    assert "http" not in page  # nothing is fetched from elsewhere
