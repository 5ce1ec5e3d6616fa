"""Writes what torchvision's two SSD detectors say of one image, from their definition as it is written down here.

    python tests/public_definitions/make_detectors.py

It follows torchvision 0.29.2, torchvision/models/detection (ssd.py, ssdlite.py, anchor_utils.py, _utils.py), with the
same names of tensors, and needs only torch; the tests read only the JSON files. Weights and image are those of
tests/public_weights.py, in float64. torchvision's own num_params confirms the shapes.
"""

import json
import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from public_weights import public_image, public_weight  # noqa: E402

SEED = 0
EVERY = 997  # codes and logits kept
EVERY_ANCHOR = 97
COLUMNS = 91


def conv_bn(inputs: int, out: int, kernel: int, stride: int, groups: int, act: type[nn.Module] | None) -> nn.Sequential:
    """Conv2dNormActivation with SSDLite's batch norm."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, out, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out, eps=0.001),
    ]
    return nn.Sequential(*layers, *([act()] if act else []))


class Squeeze(nn.Module):
    """SqueezeExcitation with ReLU and hard sigmoid."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1))))
        return x * F.hardsigmoid(gate)


class Inverted(nn.Module):
    """InvertedResidual of MobileNetV3."""

    def __init__(self, inputs: int, kernel: int, wide: int, out: int, excite: bool, act: str, stride: int) -> None:
        super().__init__()
        function = nn.Hardswish if act == "HS" else nn.ReLU
        layers = [conv_bn(inputs, wide, 1, 1, 1, function)] if wide != inputs else []
        layers.append(conv_bn(wide, wide, kernel, stride, wide, function))
        if excite:
            layers.append(Squeeze(wide, {64: 16, 72: 24, 120: 32, 480: 120, 672: 168}[wide]))  # a quarter, to eights
        layers.append(conv_bn(wide, out, 1, 1, 1, None))
        self.block, self.shortcut = nn.Sequential(*layers), stride == 1 and inputs == out

    def forward(self, x: Tensor) -> Tensor:
        y = self.block(x)
        return x + y if self.shortcut else y


# input, kernel, expanded, output, squeeze-and-excite, activation, stride: mobilenet_v3_large, tail reduced
BLOCKS = (
    (16, 3, 16, 16, False, "RE", 1), (16, 3, 64, 24, False, "RE", 2), (24, 3, 72, 24, False, "RE", 1),
    (24, 5, 72, 40, True, "RE", 2), (40, 5, 120, 40, True, "RE", 1), (40, 5, 120, 40, True, "RE", 1),
    (40, 3, 240, 80, False, "HS", 2), (80, 3, 200, 80, False, "HS", 1), (80, 3, 184, 80, False, "HS", 1),
    (80, 3, 184, 80, False, "HS", 1), (80, 3, 480, 112, True, "HS", 1), (112, 3, 672, 112, True, "HS", 1),
    (112, 5, 672, 80, True, "HS", 2), (80, 5, 480, 80, True, "HS", 1), (80, 5, 480, 80, True, "HS", 1),
)  # fmt: skip


class LiteBackbone(nn.Module):
    """SSDLiteFeatureExtractorMobileNet: cut after the expansion of block 13."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [Inverted(*row) for row in BLOCKS]
        c4 = blocks[12].block
        self.features = nn.Sequential(
            nn.Sequential(conv_bn(3, 16, 3, 2, 1, nn.Hardswish), *blocks[:12], c4[0]),
            nn.Sequential(c4[1:], *blocks[13:], conv_bn(80, 480, 1, 1, 1, nn.Hardswish)),
        )
        sizes = ((480, 512), (512, 256), (256, 256), (256, 128))
        self.extra = nn.ModuleList(
            nn.Sequential(
                conv_bn(inputs, out // 2, 1, 1, 1, nn.ReLU6),
                conv_bn(out // 2, out // 2, 3, 2, out // 2, nn.ReLU6),
                conv_bn(out // 2, out, 1, 1, 1, nn.ReLU6),
            )
            for inputs, out in sizes
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for part in (*self.features, *self.extra):
            x = part(x)
            maps.append(x)
        return maps


class VggBackbone(nn.Module):
    """SSDFeatureExtractorVGG without the additional layers of SSD512."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for i, (out, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
            for _ in range(count):
                layers += [nn.Conv2d(inputs, out, 3, padding=1), nn.ReLU()]
                inputs = out
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=i == 2))
        self.scale_weight = nn.Parameter(torch.ones(512))
        self.features = nn.Sequential(*layers[:23])
        fc = nn.Sequential(
            nn.MaxPool2d(3, 1, 1), nn.Conv2d(512, 1024, 3, padding=6, dilation=6), nn.ReLU(), nn.Conv2d(1024, 1024, 1),
            nn.ReLU(),
        )  # fmt: skip
        extra = [nn.Sequential(*layers[23:-1], fc)]
        for inputs, squeezed, out, stride, padding in (
            (1024, 256, 512, 2, 1), (512, 128, 256, 2, 1), (256, 128, 256, 1, 0), (256, 128, 256, 1, 0),
        ):  # fmt: skip
            last = nn.Conv2d(squeezed, out, 3, stride, padding)
            extra.append(nn.Sequential(nn.Conv2d(inputs, squeezed, 1), nn.ReLU(), last, nn.ReLU()))
        self.extra = nn.ModuleList(extra)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.features(x)
        maps = [self.scale_weight.view(1, -1, 1, 1) * F.normalize(x)]
        for part in self.extra:
            x = part(x)
            maps.append(x)
        return maps


class Branch(nn.Module):
    """SSDScoringHead: (N, anchors, columns)."""

    def __init__(self, layers: list[nn.Module], columns: int) -> None:
        super().__init__()
        self.module_list, self.columns = nn.ModuleList(layers), columns

    def forward(self, maps: list[Tensor]) -> Tensor:
        rows = []
        for layer, one in zip(self.module_list, maps, strict=True):
            y = layer(one)
            batch, _, height, width = y.shape
            y = y.view(batch, -1, self.columns, height, width).permute(0, 3, 4, 1, 2)
            rows.append(y.reshape(batch, -1, self.columns))
        return torch.cat(rows, 1)


class Detector(nn.Module):
    """SSD: backbone and head; `forward` gives codes and logits."""

    def __init__(self, backbone: nn.Module, channels: list[int], anchors: list[int], lite: bool) -> None:
        super().__init__()

        def layer(inputs: int, out: int) -> nn.Module:
            if lite:
                return nn.Sequential(conv_bn(inputs, inputs, 3, 1, inputs, nn.ReLU6), nn.Conv2d(inputs, out, 1))
            return nn.Conv2d(inputs, out, 3, padding=1)

        self.backbone, self.head = backbone, nn.Module()
        for name, columns in (("classification_head", COLUMNS), ("regression_head", 4)):
            layers = [layer(inputs, count * columns) for inputs, count in zip(channels, anchors, strict=True)]
            self.head.add_module(name, Branch(layers, columns))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        maps = self.backbone(x)
        return self.head.regression_head(maps)[0], self.head.classification_head(maps)[0], maps


def default_boxes(
    maps: list[Tensor], size: int, scales: list[float], ratios: list[list[int]], steps: list[int] | None
) -> Tensor:
    """DefaultBoxGenerator: left, top, right, bottom in pixels."""
    found = []
    for k, one in enumerate(maps):
        between = math.sqrt(scales[k] * scales[k + 1])
        pairs = [[scales[k], scales[k]], [between, between]]
        for ratio in ratios[k]:
            wide, high = scales[k] * math.sqrt(ratio), scales[k] / math.sqrt(ratio)
            pairs += [[wide, high], [high, wide]]
        rows, columns = one.shape[-2:]
        down, right = (size / steps[k], size / steps[k]) if steps else (rows, columns)
        for row in range(rows):
            for column in range(columns):
                for wide, high in ([min(max(side, 0), 1) for side in pair] for pair in pairs):
                    x, y = (column + 0.5) / right, (row + 0.5) / down
                    found.append([x - wide / 2, y - high / 2, x + wide / 2, y + high / 2])
    return torch.tensor(found, dtype=torch.float64) * size


def decoded(codes: Tensor, boxes: Tensor) -> Tensor:
    """BoxCoder(weights=(10, 10, 5, 5)).decode_single."""
    sizes = boxes[:, 2:] - boxes[:, :2]
    centres = boxes[:, :2] + 0.5 * sizes
    centres = codes[:, :2] / 10 * sizes + centres
    sizes = torch.exp((codes[:, 2:] / 5).clamp(max=math.log(1000 / 16))) * sizes
    return torch.cat([centres - 0.5 * sizes, centres + 0.5 * sizes], 1)


def detections(
    codes: Tensor,
    logits: Tensor,
    boxes: Tensor,
    size: int,
    threshold: float,
    overlap: float,
    most: int,
    candidates: int,
) -> list[list[float]]:
    """postprocess_detections: left, top, right, bottom, score, label of each object."""
    places = decoded(codes, boxes).clamp(0, size)
    scores = F.softmax(logits, -1)
    found = []
    for label in range(1, COLUMNS):
        own = scores[:, label]
        order = torch.argsort(own, descending=True)
        order = order[own[order] > threshold][:candidates]
        while len(order):
            best, order = order[0], order[1:]
            found.append([*places[best].tolist(), own[best].item(), label])
            low = torch.maximum(places[best, :2], places[order, :2])
            high = torch.minimum(places[best, 2:], places[order, 2:])
            shared = (high - low).clamp(min=0).prod(1)
            areas = (places[order, 2:] - places[order, :2]).prod(1)
            order = order[shared / ((places[best, 2:] - places[best, :2]).prod() + areas - shared) <= overlap]
    return sorted(found, key=lambda one: -one[4])[:most]


def write(name: str, call: str, model: Detector, size: int, scales: list[float], ratios: list[list[int]],
          steps: list[int] | None, **how: float) -> None:  # fmt: skip
    """One file."""
    shapes = {
        key: tuple(value.shape) for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")
    }
    model.load_state_dict(
        {key: torch.from_numpy(public_weight(key, shape)) for key, shape in shapes.items()}, strict=False
    )
    with torch.no_grad():
        codes, logits, maps = model.double().eval()(torch.from_numpy(public_image(size, SEED)).double())
    boxes = default_boxes(maps, size, scales, ratios, steps)
    found = detections(codes, logits, boxes, size, **how)
    record = {
        "origin": "torchvision 0.29.2",
        "call": call,
        "resolution": size,
        "image_seed": SEED,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "codes": kept(codes.flatten(), EVERY),
        "logits": kept(logits.flatten(), EVERY),
        "default_boxes": [kept(box, 1) for box in boxes[::EVERY_ANCHOR]],
        "detections": [kept(torch.tensor(one), 1) for one in found[:20]],
        "state": None,
    }
    state = ",\n  ".join(json.dumps([key, shape]) for key, shape in shapes.items())
    text = json.dumps(record, indent=1).replace('"state": null', f'"state": [\n  {state}\n ]')
    (HERE / f"{name}.json").write_text(text + "\n")
    print(f"{name}: {record['parameters']:,} parameters, {len(boxes)} boxes, {len(found)} found, best {found[0]}")


def kept(values: Tensor, every: int) -> list[float]:
    """Every so many, to nine digits."""
    return [float(f"{value:.9g}") for value in values[::every].tolist()]


def main() -> None:
    """Writes both files beside this one."""
    scales = [0.2 + (0.95 - 0.2) * k / 5 for k in range(6)] + [1.0]
    lite = Detector(LiteBackbone(), [672, 480, 512, 256, 256, 128], [6] * 6, lite=True)
    write("torchvision-ssdlite320_mobilenet_v3_large", "ssdlite320_mobilenet_v3_large()", lite, 320, scales,
          [[2, 3]] * 6, None, threshold=0.001, overlap=0.55, most=300, candidates=300)  # fmt: skip
    vgg = Detector(VggBackbone(), [512, 1024, 512, 256, 256, 256], [4, 6, 6, 6, 4, 4], lite=False)
    write("torchvision-ssd300_vgg16", "ssd300_vgg16()", vgg, 300, [0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05],
          [[2], [2, 3], [2, 3], [2, 3], [2], [2]], [8, 16, 32, 64, 100, 300], threshold=0.01, overlap=0.45, most=200,
          candidates=400)  # fmt: skip


if __name__ == "__main__":
    main()
