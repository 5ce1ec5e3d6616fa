"""Public networks on 650 real ImageNet validation images: the accuracy that was measured with other code.

The images are cropped already and an easy selection, so that the numbers are above the published ones. They come from
the files' own descriptions, not from this package.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from imagenet_images import CHECKPOINTS
from shared_files import shared
from smallcnn import runtime
from smallcnn.checkpoints.importing import import_checkpoint
from smallcnn.data.sources import open_source
from smallcnn.evaluate import evaluate
from smallcnn.image import imagenet
from smallcnn.ir import ops
from smallcnn.model.store import save
from smallcnn.module import to_module
from smallcnn.tasks.labels import match_labels
from smallcnn.tasks.metrics import measure

POINTS = 0.5  # three of 650 images: what integer arithmetic decides differently


def measured(files, model, imagenet_images, path):
    """What the imported network gets right."""
    if files[0].endswith(".tflite"):
        pytest.importorskip("tflite")
    save(import_checkpoint([shared(f"weights/{file}") for file in files], model), path)
    result = evaluate(runtime.open(path), imagenet_images, crop=1.0)
    assert (result.part, result.skipped) == ("all", {})
    return result.metrics


@pytest.mark.parametrize(("files", "model", "top1", "top5"), CHECKPOINTS, ids=[row[0][-1] for row in CHECKPOINTS])
def test_accuracy_is_the_measured_one(files, model, top1, top5, imagenet_images, tmp_path):
    found = measured(files, model, imagenet_images, tmp_path / "m.safetensors")
    assert found.images == 650
    assert 100 * found.top1 == pytest.approx(top1, abs=POINTS)
    assert 100 * found.top5 == pytest.approx(top5, abs=POINTS)


@pytest.mark.parametrize(("file", "top1"), [
    ("mobilenet_v1_0.25_128_quant", 50.3), ("mobilenet_v2_1.0_224_quant", 78.2),
])  # fmt: skip
def test_networks_of_whole_numbers_are_as_accurate_as_their_originals(file, top1, imagenet_images):
    """Their logits are bytes: of equal ones the first counts, as it did for the originals."""
    pytest.importorskip("tflite")
    made = import_checkpoint([shared(f"weights/{file}.tflite")])
    assert made.graph.integer
    net, prepared = runtime.of(made), replace(made.preprocessing, crop=1.0)
    source = open_source(imagenet_images).everything()
    classes = match_labels(open_source(imagenet_images).classes, made.labels)[source.labels]
    found = [net.logits(prepared.prepare(path).pixels[None])[0].argmax() for path in source.images]
    assert 100 * np.mean(found == classes) == pytest.approx(top1, abs=0.3)


class _Rounded(torch.nn.Module):
    """To the 256 values of an 8-bit tensor with these limits."""

    def __init__(self, op):
        super().__init__()
        self.low, self.step = op.low, (op.high - op.low) / 255

    def forward(self, x):
        return x.sub_(self.low).div_(self.step).round_().clamp_(0, 255).mul_(self.step).add_(self.low)


@pytest.mark.long
def test_mobilenet_v2_differs_from_its_8_bit_original_by_the_rounding(imagenet_images, tmp_path):
    """In float it is right on four images of 650 more than in 8 bits; rounding as 8 bits do, it is not."""
    pytest.importorskip("tflite")
    made = import_checkpoint([shared("weights/mobilenet_v2_1.0_224_quant.tflite")], "mobilenet_v2")
    save(made, tmp_path / "m.safetensors")
    in_float = evaluate(runtime.open(tmp_path / "m.safetensors"), imagenet_images, crop=1.0).metrics
    assert 100 * in_float.top1 == pytest.approx(78.2, abs=POINTS + 0.25)
    assert 100 * in_float.top5 == pytest.approx(94.9, abs=POINTS + 0.25)

    module = to_module(made.graph, made.weights).eval().to(memory_format=torch.channels_last)
    for node in made.graph:
        if isinstance(node.op, ops.Clip) and node.name != made.graph.output:
            parent, _, leaf = node.name.rpartition(".")
            setattr(module.get_submodule(parent), leaf, _Rounded(node.op))
    prepared = replace(made.preprocessing, crop=1.0)
    source = open_source(imagenet_images).everything()
    images = np.stack([prepared.prepare(path).pixels for path in source.images])
    with torch.inference_mode():
        logits = [
            module(torch.from_numpy(prepared.normalise(images[i : i + 50])).permute(0, 3, 1, 2)).numpy()
            for i in range(0, len(images), 50)
        ]
    classes = match_labels(open_source(imagenet_images).classes, made.labels)
    rounded = measure(np.concatenate(logits), classes[source.labels])
    assert rounded.images == 650
    assert 100 * rounded.top1 == pytest.approx(78.2, abs=POINTS)
    assert 100 * rounded.top5 == pytest.approx(94.9, abs=POINTS)


# --- the classes ---------------------------------------------------------------------------------------------------


def test_a_thousand_names_each_for_one_class():
    names, wnids = imagenet.labels(), list(imagenet.by_wnid())
    assert len(names) == len(set(names)) == len(wnids) == len(set(wnids)) == 1000
    assert wnids == sorted(wnids)
    assert all(len(wnid) == 9 and wnid[0] == "n" and wnid[1:].isdigit() for wnid in wnids)
    assert imagenet.BACKGROUND not in names
    assert all(name == name.strip() and name and "," not in name for name in names)


@pytest.mark.parametrize(("index", "wnid", "name"), [  # from the list of ILSVRC-2012's synsets
    (0, "n01440764", "tench"), (1, "n01443537", "goldfish"), (207, "n02099601", "golden retriever"),
    (281, "n02123045", "tabby"), (409, "n02708093", "analog clock"), (954, "n07753592", "banana"),
    (999, "n15075141", "toilet tissue"),
])  # fmt: skip
def test_well_known_classes_are_where_everyone_has_them(index, wnid, name):
    assert list(imagenet.by_wnid().items())[index] == (wnid, name)
    assert imagenet.labels()[index] == name


def test_names_are_those_of_the_synsets():
    """Each the first word of its synset, but for the four that another has too, whatever the case."""
    lines = shared("data/imagenet_synset_words.txt").read_text().splitlines()
    synsets = {wnid: words.split(", ") for wnid, _, words in (line.partition(" ") for line in lines)}
    assert list(synsets) == list(imagenet.by_wnid())
    other = {wnid: name for wnid, name in imagenet.by_wnid().items() if name != synsets[wnid][0]}
    assert other == {
        "n02012849": "crane (bird)", "n03126707": "crane (machine)",
        "n02113186": "Cardigan Welsh corgi", "n03710721": "tank suit",
    }  # fmt: skip
    first = [words[0].lower() for words in synsets.values()]
    assert {wnid for wnid, word in zip(synsets, first, strict=True) if first.count(word) > 1} >= other.keys()
