"""Writes, per network, what its public definition in PyTorch says: the state dict, and the logits of one image.

    python tests/public_definitions/make.py SHUFFLENET_SERIES

Needs an environment of its own with torch, torchvision 0.29.2 and timm 1.0.31, and a checkout of
github.com/megvii-model/ShuffleNet-Series; the tests read only the JSON files. The weights are those of
tests/public_weights.py, not the published ones; the logits are computed in float64.
"""

import json
import sys
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from public_weights import public_image, public_weight  # noqa: E402

SEED = 0
EVERY = 10  # logits kept: every tenth
TORCHVISION_VERSION = f"torchvision {torchvision.__version__.partition('+')[0]}"
STRAIGHT = {"aux_logits": False, "init_weights": False, "transform_input": False}

# resolution 72 has even and odd planes on the way down (36, 18, 9, 5, 3)
TORCHVISION = [
    ("mobilenet_v2", "mobilenet_v2", {"width_mult": 1.0}, 72),
    ("mobilenet_v2_x0_5", "mobilenet_v2", {"width_mult": 0.5}, 72),
    ("mobilenet_v2_x1_4", "mobilenet_v2", {"width_mult": 1.4}, 72),
    ("mobilenet_v3_large", "mobilenet_v3_large", {}, 72),
    ("mobilenet_v3_small", "mobilenet_v3_small", {}, 72),
    ("squeezenet1_0", "squeezenet1_0", {}, 72),
    ("squeezenet1_1", "squeezenet1_1", {}, 72),
    ("shufflenet_v2_x0_5", "shufflenet_v2_x0_5", {}, 72),
    ("shufflenet_v2_x1_0", "shufflenet_v2_x1_0", {}, 72),
    ("shufflenet_v2_x1_5", "shufflenet_v2_x1_5", {}, 72),
    ("shufflenet_v2_x2_0", "shufflenet_v2_x2_0", {}, 72),
    ("googlenet", "googlenet", STRAIGHT, 72),
    ("vgg16", "vgg16", {}, 224),  # dense layers on 7x7
    ("alexnet", "alexnet", {}, 224),  # dense layers on 6x6
]
TIMM = [
    ("mobilenetv1_100", 72),
    ("mobilenetv2_100", 72),
    ("mobilenetv2_140", 72),
    ("mobilenetv3_large_100", 72),
    ("mobilenetv3_small_100", 72),
    ("tf_mobilenetv3_large_100", 72),
    ("mobilenetv4_conv_small", 72),
    ("efficientnet_lite0", 72),
    ("tf_efficientnet_lite0", 72),
    ("legacy_xception", 96),
]
SHUFFLENET_V2_SERIES = ["0.5x", "1.0x", "1.5x", "2.0x"]


def main() -> None:
    """Writes every file beside this one."""
    for name, function, options, resolution in TORCHVISION:
        model = getattr(torchvision.models, function)(weights=None, **options)
        call = f"{function}({', '.join(f'{key}={value}' for key, value in options.items())})"
        write(f"torchvision-{name}", TORCHVISION_VERSION, call, model, resolution)
    for name, resolution in TIMM:
        model = timm.create_model(name)
        write(f"timm-{name}", f"timm {timm.__version__}", f"create_model('{name}')", model, resolution)
    sys.path.insert(0, str(Path(sys.argv[1]) / "ShuffleNetV2"))
    from network import ShuffleNetV2

    for size in SHUFFLENET_V2_SERIES:
        call = f"ShuffleNetV2(model_size='{size}')"
        name = f"megvii-shufflenet_v2_x{size[:-1].replace('.', '_')}"
        write(name, "megvii-model/ShuffleNet-Series", call, ShuffleNetV2(model_size=size), 224)  # pools over 7x7


def write(name: str, origin: str, call: str, model: torch.nn.Module, resolution: int) -> None:
    """One file."""
    shapes = {
        key: tuple(value.shape) for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")
    }
    values = {key: torch.from_numpy(public_weight(key, shape)) for key, shape in shapes.items()}
    missing = model.load_state_dict(values, strict=False).missing_keys
    assert all(key.endswith("num_batches_tracked") for key in missing), missing
    with torch.no_grad():
        logits = model.double().eval()(torch.from_numpy(public_image(resolution, SEED)).double())[0].numpy()
    kept = logits[::EVERY]
    assert np.isfinite(kept).all(), name
    assert kept.std() > 0.01 * np.abs(kept).mean(), f"{name}: the logits hardly differ"
    state = ",\n  ".join(json.dumps([key, shape]) for key, shape in shapes.items())
    text = f"""{{
 "origin": {json.dumps(origin)},
 "call": {json.dumps(call)},
 "resolution": {resolution},
 "image_seed": {SEED},
 "state": [
  {state}
 ],
 "logits": [{", ".join(f"{value:.9g}" for value in kept)}]
}}
"""
    json.loads(text)
    (HERE / f"{name}.json").write_text(text)
    print(f"{name}: {len(shapes)} tensors, logits {kept.mean():.3g} ± {kept.std():.3g}")


if __name__ == "__main__":
    main()
