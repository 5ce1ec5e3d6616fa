"""How public weights are named, laid out and prepared for: one `Layout` per origin and network.

A layout's rules turn the name of each of our nodes with weights into the origin's name of that layer. A pattern such as
"block{i}.expand.conv" stands for every number i; what it becomes is a format string or a function of those numbers.
Names and conventions are those of the public definitions: torchvision 0.29 (torchvision/models), timm 1.0
(timm/models), Keras applications (keras_applications), Gluon's model zoo (mxnet/gluon/model_zoo/vision) and
megvii-model/ShuffleNet-Series.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np

from smallcnn import ops
from smallcnn.checkpoints.read import Tensors
from smallcnn.data.preprocessing import Interpolation
from smallcnn.graph import Graph, Node

Rules = Mapping[str, str | Callable[..., str]]


@dataclass(frozen=True)
class Scheme:
    """How one framework names and stores the tensors of a layer.

    `tensors` gives, for a node, our tensor names with theirs; `ours` turns a stored array into our layout.
    """

    separator: str
    tensors: Callable[[Graph, Node], dict[str, str]]
    ours: Callable[[Graph, Node, str, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Layout:
    """One origin's form of one network.

    `implies` are options of the network that these weights need; `extra` are tensors a file may have besides, as
    regular expressions; `renamed` other names that files use for a layer; `zero` tensors of ours that the origin's
    network does not have. `blue_first` says that its pictures have their channels in the order blue, green, red.
    With `same_names` nodes without a rule are called as here.
    """

    origin: str
    model: str
    rules: Rules
    scheme: Scheme
    implies: dict[str, Any] = field(default_factory=dict)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    crop: float = 0.875
    interpolation: Interpolation = "bilinear"
    extra: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    zero: tuple[str, ...] = ()
    blue_first: bool = False
    same_names: bool = False

    def names(self, graph: Graph) -> dict[str, dict[str, str]]:
        """For each node with weights, in order, our tensors with the origin's full names."""
        patterns = [(_compiled(pattern), name) for pattern, name in self.rules.items()]
        found = {}
        for node in graph:
            if graph.weights_of(node):
                layer = self._layer(node.name, patterns)
                tensors = self.scheme.tensors(graph, node)
                found[node.name] = {
                    key: f"{layer}{self.scheme.separator}{theirs}"
                    for key, theirs in tensors.items()
                    if f"{node.name}.{key}" not in self.zero
                }
        return found

    def of_file(self, tensors: Tensors) -> Tensors:
        """The file's tensors under the names this layout uses, without those that are not part of the network."""
        separator = self.scheme.separator
        kept = {}
        for name, value in tensors.items():
            layer, _, tensor = name.rpartition(separator)
            if not any(re.fullmatch(pattern, name) for pattern in self.extra):
                kept[f"{self.renamed[layer]}{separator}{tensor}" if layer in self.renamed else name] = value
        return kept

    def _layer(self, node: str, patterns: list[tuple[re.Pattern[str], str | Callable[..., str]]]) -> str:
        for pattern, name in patterns:
            if match := pattern.fullmatch(node):
                numbers = {key: int(value) for key, value in match.groupdict().items()}
                return name.format(**numbers) if isinstance(name, str) else name(**numbers)
        if self.same_names:
            return node
        raise KeyError(f"{self.origin} {self.model}: no rule for {node}")


def layouts_of(model: str) -> list[Layout]:
    """The layouts of a network, by its registry name."""
    return [layout for layout in LAYOUTS if layout.model == model]


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{(\w)\\}", r"(?P<\1>[0-9]+)", re.escape(pattern)))


# --- schemes ---


def _torch_tensors(graph: Graph, node: Node) -> dict[str, str]:
    return {key: key for key in graph.weights_of(node)}


def torch_array(graph: Graph, node: Node, key: str, value: np.ndarray) -> np.ndarray:
    """Dense layers may be 1x1 convolutions there, and read maps flattened channels first."""
    if not (isinstance(node.op, ops.Dense) and key == "weight"):
        return value
    if value.ndim == 4 and value.shape[2:] == (1, 1):
        value = value[:, :, 0, 0]
    source = graph[node.inputs[0]]
    while isinstance(source.op, ops.Dropout | ops.Activation):
        source = graph[source.inputs[0]]
    if isinstance(source.op, ops.Flatten) and value.shape[1:] == source.shape:
        height, width, channels = graph[source.inputs[0]].shape
        value = value.reshape(-1, channels, height, width).transpose(0, 2, 3, 1).reshape(len(value), -1)
    return value


_NORM = {"weight": "gamma", "bias": "beta"}


def _keras_tensors(graph: Graph, node: Node) -> dict[str, str]:
    if isinstance(node.op, ops.BatchNorm):
        return _NORM | {"running_mean": "moving_mean", "running_var": "moving_variance"}
    depthwise = isinstance(node.op, ops.Conv) and node.op.is_depthwise(*graph.input_shapes(node))
    weight = "depthwise_kernel" if depthwise else "kernel"
    return {key: {"weight": weight}.get(key, key) for key in graph.weights_of(node)}


def _keras_ours(graph: Graph, node: Node, key: str, value: np.ndarray) -> np.ndarray:
    """Kernels are (height, width, in, out), depthwise ones (height, width, channels, 1), dense ones (in, out)."""
    if isinstance(node.op, ops.BatchNorm) or key != "weight":
        return value
    if isinstance(node.op, ops.Conv) and value.ndim == 4:
        depthwise = node.op.is_depthwise(*graph.input_shapes(node))
        return value.transpose(2, 3, 0, 1) if depthwise else value.transpose(3, 2, 0, 1)
    if isinstance(node.op, ops.Dense):
        return value.reshape(-1, value.shape[-1]).T
    return value


def _gluon_tensors(graph: Graph, node: Node) -> dict[str, str]:
    norm = isinstance(node.op, ops.BatchNorm)
    return {key: _NORM.get(key, key) if norm else key for key in graph.weights_of(node)}


_TORCH = Scheme(".", _torch_tensors, torch_array)
_KERAS = Scheme("/", _keras_tensors, _keras_ours)
_GLUON = Scheme("_", _gluon_tensors, torch_array)

# --- networks ---

_INCEPTION: dict[str, Any] = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
"""Pixels as -1..1, as TensorFlow's code prepares them; the others subtract ImageNet's mean colour."""

_PYTORCH = {"padding": "symmetric", "epsilon": 1e-5}


def _conv_bn(ours: str, conv: str, bn: str) -> dict[str, str]:
    return {f"{ours}.conv": conv, f"{ours}.bn": bn}


def _stages(*repeats: int) -> Callable[[int], tuple[int, int]]:
    """Block number from 1 -> (stage from 0, place in it from 0), for stages of so many blocks."""
    starts = [0, *accumulate(repeats)]
    places = [(stage, i) for stage, count in enumerate(repeats) for i in range(count)]
    assert len(places) == starts[-1]
    return lambda block: places[block - 1]


def _timm(repeats: tuple[int, ...], steps: Mapping[str, str]) -> dict[str, Callable[..., str]]:
    """timm's `blocks.<stage>.<place>.<step>`, for blocks numbered through."""
    place = _stages(*repeats)

    def rule(step: str) -> Callable[..., str]:
        return lambda i: "blocks.{}.{}.".format(*place(i)) + step

    return {f"block{{i}}.{ours}": rule(theirs) for ours, theirs in steps.items()}


_TORCHVISION_MOBILENET_V2: Rules = {
    **_conv_bn("stem", "features.0.0", "features.0.1"),
    **_conv_bn("block1.depthwise", "features.1.conv.0.0", "features.1.conv.0.1"),
    **_conv_bn("block1.project", "features.1.conv.1", "features.1.conv.2"),
    **_conv_bn("block{i}.expand", "features.{i}.conv.0.0", "features.{i}.conv.0.1"),
    **_conv_bn("block{i}.depthwise", "features.{i}.conv.1.0", "features.{i}.conv.1.1"),
    **_conv_bn("block{i}.project", "features.{i}.conv.2", "features.{i}.conv.3"),
    **_conv_bn("last", "features.18.0", "features.18.1"),
    "classifier": "classifier.1",
}

_TIMM_ENDS = {
    **_conv_bn("stem", "conv_stem", "bn1"),
    **_conv_bn("last", "conv_head", "bn2"),
    "classifier": "classifier",
}
_TIMM_SEPARABLE = {**_conv_bn("depthwise", "conv_dw", "bn1"), **_conv_bn("project", "conv_pw", "bn2")}
_TIMM_INVERTED = {
    **_conv_bn("expand", "conv_pw", "bn1"),
    **_conv_bn("depthwise", "conv_dw", "bn2"),
    **_conv_bn("project", "conv_pwl", "bn3"),
}
_FIRST = {f"block1.{ours}": f"blocks.0.0.{theirs}" for ours, theirs in _TIMM_SEPARABLE.items()}

_KERAS_MOBILENET_V1: Rules = {
    **_conv_bn("stem", "conv1", "conv1_bn"),
    **_conv_bn("block{i}.depthwise", "conv_dw_{i}", "conv_dw_{i}_bn"),
    **_conv_bn("block{i}.pointwise", "conv_pw_{i}", "conv_pw_{i}_bn"),
    "classifier": "conv_preds",
}


def _block_before(step: str) -> Callable[..., str]:
    return lambda i: f"block_{i - 1}_{step}"


_KERAS_MOBILENET_V2: Rules = {
    **_conv_bn("stem", "Conv1", "bn_Conv1"),
    **_conv_bn("block1.depthwise", "expanded_conv_depthwise", "expanded_conv_depthwise_BN"),
    **_conv_bn("block1.project", "expanded_conv_project", "expanded_conv_project_BN"),
    **{
        f"block{{i}}.{step}.{ours}": _block_before(f"{step}{theirs}")
        for step in ("expand", "depthwise", "project")
        for ours, theirs in (("conv", ""), ("bn", "_BN"))
    },
    **_conv_bn("last", "Conv_1", "Conv_1_bn"),
    "classifier": "Logits",
}


def _gluon_bottleneck(kind: str, number: int) -> Callable[..., str]:
    return lambda i: f"mobilenetv20_features_linearbottleneck{i - 1}_{kind}{number}"


_GLUON_MOBILENET_V2: Rules = {
    **_conv_bn("stem", "mobilenetv20_features_conv0", "mobilenetv20_features_batchnorm0"),
    **{
        f"block{{i}}.{step}.{ours}": _gluon_bottleneck(theirs, number)
        for number, step in enumerate(("expand", "depthwise", "project"))
        for ours, theirs in (("conv", "conv"), ("bn", "batchnorm"))
    },
    **_conv_bn("last", "mobilenetv20_features_conv1", "mobilenetv20_features_batchnorm1"),
    "classifier": "mobilenetv20_output_pred",
}

_FIRES = {  # fire2 to fire9 among torchvision's `features`, by where its pools are
    "squeezenet_1_0": (3, 4, 5, 7, 8, 9, 10, 12),
    "squeezenet_1_1": (3, 4, 6, 7, 9, 10, 11, 12),
}


def _torchvision_squeezenet(model: str) -> Rules:
    def fire(layer: str) -> Callable[..., str]:
        return lambda i: f"features.{_FIRES[model][i - 2]}.{layer}"

    layers = ("squeeze", "expand1x1", "expand3x3")
    fires = {f"fire{{i}}.{layer}.conv": fire(layer) for layer in layers}
    return {"stem.conv": "features.0", **fires, "classifier.conv": "classifier.1"}


def _gluon_fire(place: int) -> Callable[..., str]:
    return lambda i: f"squeezenet0_conv{1 + 3 * (i - 2) + place}"


_GLUON_SQUEEZENET: Rules = {
    "stem.conv": "squeezenet0_conv0",
    **{f"fire{{i}}.{layer}.conv": _gluon_fire(n) for n, layer in enumerate(("squeeze", "expand1x1", "expand3x3"))},
    "classifier.conv": "squeezenet0_conv25",
}


def _xception_separable(layer: str, offset: int = 0) -> Callable[..., str]:
    """In timm every block but the first begins with a ReLU, which takes a number."""
    return lambda i, j: f"block{i}.rep.{3 * (j - 1) + (i > 1) + offset}{layer}"


_TIMM_XCEPTION: Rules = {
    **_conv_bn("stem.first", "conv1", "bn1"),
    **_conv_bn("stem.second", "conv2", "bn2"),
    **_conv_bn("block{i}.shortcut", "block{i}.skip", "block{i}.skipbn"),
    "block{i}.separable{j}.depthwise": _xception_separable(".conv1"),
    "block{i}.separable{j}.pointwise": _xception_separable(".pointwise"),
    "block{i}.separable{j}.bn": _xception_separable("", 1),
    "exit.separable{i}.depthwise": lambda i: f"conv{i + 2}.conv1",
    "exit.separable{i}.pointwise": lambda i: f"conv{i + 2}.pointwise",
    "exit.separable{i}.bn": lambda i: f"bn{i + 2}",
    "classifier": "fc",
}

# MobileNetV3 in torchvision numbers the parts of a block; without an expansion they start with the depthwise layer.
_EXCITED = {"mobilenet_v3_large": (4, 5, 6, 11, 12, 13, 14, 15), "mobilenet_v3_small": (1, 4, 5, 6, 7, 8, 9, 10, 11)}
_BLOCKS = {"mobilenet_v3_large": 15, "mobilenet_v3_small": 11}


def _torchvision_mobilenet_v3(model: str) -> Rules:
    rules = {**_conv_bn("stem", "features.0.0", "features.0.1")}
    for block in range(1, _BLOCKS[model] + 1):
        excited = block in _EXCITED[model]
        steps = [*(["expand"] if block > 1 else []), "depthwise", *(["se"] if excited else []), "project"]
        for number, step in enumerate(steps):
            place = f"features.{block}.block.{number}"
            if step == "se":
                rules |= {f"block{block}.se.reduce": f"{place}.fc1", f"block{block}.se.expand": f"{place}.fc2"}
            else:
                rules |= _conv_bn(f"block{block}.{step}", f"{place}.0", f"{place}.1")
    end = f"features.{_BLOCKS[model] + 1}"
    return rules | _conv_bn("last", f"{end}.0", f"{end}.1") | {
        "hidden.dense": "classifier.0", "classifier": "classifier.3",
    }  # fmt: skip


_TIMM_EXCITE = {"se.reduce": "se.conv_reduce", "se.expand": "se.conv_expand"}
_TIMM_V3_STAGES = {"mobilenet_v3_large": (1, 2, 3, 4, 2, 3), "mobilenet_v3_small": (1, 2, 3, 2, 3)}


def _timm_mobilenet_v3(model: str) -> Rules:
    repeats = _TIMM_V3_STAGES[model]
    last = f"blocks.{len(repeats)}.0"
    return {
        **_conv_bn("stem", "conv_stem", "bn1"),
        **_FIRST,
        **_timm(repeats, {**_TIMM_INVERTED, **_TIMM_EXCITE}),
        **_conv_bn("last", f"{last}.conv", f"{last}.bn1"),
        "hidden.dense": "conv_head",
        "classifier": "classifier",
    }


_TIMM_MOBILENET_V4: Rules = {
    **_conv_bn("stem", "conv_stem", "bn1"),
    **{
        f"conv{{i}}.{ours}": (lambda i, theirs=theirs: f"blocks.{(i - 1) // 2}.{(i - 1) % 2}.{theirs}")
        for ours, theirs in (("conv", "conv"), ("bn", "bn1"))
    },
    **{
        f"block{{i}}.{ours}.{part}": (
            lambda i, theirs=theirs, part=part: f"blocks.{2 + (i - 1) // 6}.{(i - 1) % 6}.{theirs}.{part}"
        )
        for ours, theirs in (
            ("depthwise1", "dw_start"), ("expand", "pw_exp"), ("depthwise2", "dw_mid"), ("project", "pw_proj"),
        )
        for part in ("conv", "bn")
    },
    **_conv_bn("last", "blocks.4.0.conv", "blocks.4.0.bn1"),
    "hidden.dense": "conv_head",
    "hidden.bn": "norm_head",
    "classifier": "classifier",
}  # fmt: skip

# ShuffleNetV2's 16 units, three stages of 4, 8 and 4; a stride-2 unit has layers in its shortcut too
_SHUFFLE_BRANCH = {
    **_conv_bn("branch.pointwise1", "0", "1"),
    **_conv_bn("branch.depthwise", "3", "4"),
    **_conv_bn("branch.pointwise2", "5", "6"),
}
_SHUFFLE_SHORTCUT = {**_conv_bn("shortcut.depthwise", "0", "1"), **_conv_bn("shortcut.pointwise", "2", "3")}
_SHUFFLE_PLACE = _stages(4, 8, 4)


def _by_stage(end: str) -> Callable[..., str]:
    def name(i: int) -> str:
        stage, unit = _SHUFFLE_PLACE(i)
        return f"stage{stage + 2}.{unit}.{end}"

    return name


def _by_feature(end: str) -> Callable[..., str]:
    return lambda i: f"features.{i - 1}.{end}"


def _shufflenet_v2(
    place: Callable[[str], Callable[..., str]], branch: str, shortcut: str, stem: str, last: str
) -> Rules:
    return {
        **_conv_bn("stem", f"{stem}.0", f"{stem}.1"),
        **{f"block{{i}}.{ours}": place(f"{branch}.{theirs}") for ours, theirs in _SHUFFLE_BRANCH.items()},
        **{f"block{{i}}.{ours}": place(f"{shortcut}.{theirs}") for ours, theirs in _SHUFFLE_SHORTCUT.items()},
        **_conv_bn("last", f"{last}.0", f"{last}.1"),
    }


def _shufflenet_v1_unit(end: str) -> Callable[..., str]:
    return lambda i, j: f"features.{(0, 4, 12)[i - 2] + j - 1}.{end}"


_MEGVII_SHUFFLENET_V1: Rules = {
    **_conv_bn("stem", "first_conv.0", "first_conv.1"),
    **{
        f"stage{{i}}_{{j}}.{ours}": _shufflenet_v1_unit(theirs)
        for step, conv, bn in (
            ("reduce", "branch_main_1.0", "branch_main_1.1"),
            ("depthwise", "branch_main_1.3", "branch_main_1.4"),
            ("expand", "branch_main_2.0", "branch_main_2.1"),
        )
        for ours, theirs in _conv_bn(step, conv, bn).items()
    },
    "classifier": "classifier.0",
}

_TORCHVISION_ALEXNET: Rules = {
    **{f"conv{i}.conv": f"features.{n}" for i, n in enumerate((0, 3, 6, 8, 10), start=1)},
    "fc6.dense": "classifier.1",
    "fc7.dense": "classifier.4",
    "classifier": "classifier.6",
}
_TORCHVISION_VGG: Rules = {
    "conv{i}_{j}.conv": lambda i, j: f"features.{(0, 5, 10, 17, 24)[i - 1] + 2 * (j - 1)}",
    "fc6.dense": "classifier.0",
    "fc7.dense": "classifier.3",
    "classifier": "classifier.6",
}

_BLUE_FIRST: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255,) * 3, "blue_first": True}
"""What megvii's code feeds: blue, green, red in 0..255."""

_TENSORFLOW = {"padding": "same", "epsilon": 0.001}
_BICUBIC: dict[str, Any] = {"interpolation": "bicubic"}

LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "timm", "mobilenet_v1",
        {**_TIMM_ENDS, **_timm((1, 2, 2, 6, 2), {**_TIMM_SEPARABLE, **_conv_bn("pointwise", "conv_pw", "bn2")})},
        _TORCH, _PYTORCH, **_INCEPTION, **_BICUBIC,
    ),
    Layout("keras", "mobilenet_v1", _KERAS_MOBILENET_V1, _KERAS, _TENSORFLOW, **_INCEPTION),
    Layout("torchvision", "mobilenet_v2", _TORCHVISION_MOBILENET_V2, _TORCH, _PYTORCH),
    Layout(
        "timm", "mobilenet_v2", {**_TIMM_ENDS, **_FIRST, **_timm((1, 2, 3, 4, 3, 3, 1), _TIMM_INVERTED)}, _TORCH,
        _PYTORCH, **_BICUBIC,
    ),
    Layout(
        "keras", "mobilenet_v2", _KERAS_MOBILENET_V2, _KERAS, _TENSORFLOW, **_INCEPTION,
        renamed={"predictions": "Logits"},
    ),
    Layout("gluon", "mobilenet_v2", _GLUON_MOBILENET_V2, _GLUON, {**_PYTORCH, "first_expansion": True}),
    *(
        layout
        for model in _BLOCKS
        for layout in (
            Layout(
                "torchvision", model, _torchvision_mobilenet_v3(model), _TORCH,
                {"padding": "symmetric", "epsilon": 0.001},
            ),
            Layout("timm", model, _timm_mobilenet_v3(model), _TORCH, _PYTORCH, **_BICUBIC),
            Layout("timm-tf", model, _timm_mobilenet_v3(model), _TORCH, _TENSORFLOW, **_INCEPTION),
        )
    ),
    Layout("timm", "mobilenet_v4_conv_small", _TIMM_MOBILENET_V4, _TORCH, _PYTORCH, **_BICUBIC),
    Layout(
        "timm", "efficientnet_lite0",
        {**_TIMM_ENDS, **_FIRST, **_timm((1, 2, 2, 3, 3, 4, 1), _TIMM_INVERTED)}, _TORCH, _PYTORCH, **_BICUBIC,
    ),
    Layout(
        "timm-tf", "efficientnet_lite0",
        {**_TIMM_ENDS, **_FIRST, **_timm((1, 2, 2, 3, 3, 4, 1), _TIMM_INVERTED)}, _TORCH, _TENSORFLOW,
        **_INCEPTION, **_BICUBIC,
    ),
    Layout(
        "torchvision", "shufflenet_v2",
        {**_shufflenet_v2(_by_stage, "branch2", "branch1", "conv1", "conv5"), "classifier": "fc"}, _TORCH,
        {"shuffle": "paper"},
    ),
    Layout(
        "megvii", "shufflenet_v2",
        {**_shufflenet_v2(_by_feature, "branch_main", "branch_proj", "first_conv", "conv_last"),
         "classifier": "classifier.0"},
        _TORCH, {"shuffle": "released"}, **_BLUE_FIRST,
    ),
    Layout(  # the backbone in dog-qiuqiu/FastestDet, fed with pixels in 0..1
        "fastestdet", "shufflenet_v2",
        {**_shufflenet_v2(_by_stage, "branch_main", "branch_proj", "first_conv", "conv_last"),
         "classifier": "classifier.0"},
        _TORCH, {"shuffle": "released"}, **{**_BLUE_FIRST, "std": (1.0, 1.0, 1.0)},
    ),
    Layout(
        "megvii", "shufflenet_v1", _MEGVII_SHUFFLENET_V1, _TORCH, {"shuffle": "released"}, **_BLUE_FIRST,
        zero=("classifier.bias",),
    ),
    *(Layout("torchvision", model, _torchvision_squeezenet(model), _TORCH) for model in _FIRES),
    Layout("gluon", "squeezenet_1_1", _GLUON_SQUEEZENET, _GLUON),
    Layout("timm", "xception", _TIMM_XCEPTION, _TORCH, _PYTORCH, **_INCEPTION, crop=0.8975, **_BICUBIC),
    Layout(  # torchvision turns ImageNet's mean and deviation into 0.5 itself (transform_input)
        "torchvision", "googlenet", {"classifier": "fc"}, _TORCH, {"variant": "torchvision"}, **_INCEPTION,
        same_names=True, extra=(r"aux[12]\..*",),
    ),
    Layout("torchvision", "vgg16", _TORCHVISION_VGG, _TORCH),
    Layout("torchvision", "alexnet", _TORCHVISION_ALEXNET, _TORCH, {"variant": "one_tower"}),
)  # fmt: skip
