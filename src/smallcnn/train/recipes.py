"""Recipes by name: our own and the papers', each with its cost and the accuracy it reached.

    smallcnn recipes                    lists them
    smallcnn train MODEL --recipe NAME  uses one; other options override its settings

The papers' recipes keep the paper's optimizer, rates, decay, schedule and, where smallcnn has an equivalent, its
augmentation. The length is yours to choose: the paper's, hundreds of thousands of steps on many machines, is in
`source`.
"""

from dataclasses import dataclass

from smallcnn.errors import DataError, closest
from smallcnn.train.recipe import Recipe


@dataclass(frozen=True)
class Named:
    """A recipe with its name, purpose, source, and the accuracy it reached at what cost."""

    name: str
    purpose: str
    source: str
    reached: str
    recipe: Recipe


NAMED: dict[str, Named] = {
    entry.name: entry
    for entry in (
        Named(
            "photos",
            "photographs, from scratch",
            "ours: long cosine schedule, light augmentation, weight averaging, label smoothing",
            "70.4 % on 10 kinds of clothing (1,675 images, MobileNet v1 0.5 at 128): 60 epochs, 18 minutes, one core",
            Recipe(epochs=90, ema=0.999, min_area=0.35),
        ),
        Named(
            "small-images",
            "images up to 64 pixels, from scratch",
            "ours: cosine schedule, shift and mirror, weight averaging, label smoothing",
            "86.6 % on CIFAR-10 as JPEG (ResNet-20, 20 epochs): 93 minutes, one core",
            Recipe(epochs=30, ema=0.999, warmup_epochs=1.0),
        ),
        Named(
            "finetune",
            "your images, from trained weights: first the last layer, then all layers, early blocks at lower rates",
            "ours; discriminative rates after Howard and Ruder 2018 (arXiv 1801.06146), section 3.2",
            "90.2 % on 5 kinds of flowers (2,934 images, MobileNetV2 at 160): 13 minutes, two cores; rerun: 92.1 %",
            Recipe(epochs=12, head_epochs=2, layer_decay=0.9, ema=0.998, min_area=0.35, warmup_epochs=1.0),
        ),
        Named(
            "detect",
            "objects in your images: SSD's matching, losses and augmentation",
            "ours; views and losses after Liu et al. 2016 (arXiv 1512.02325), section 2.2",
            "42.4 % AP, 90.5 % AP50 on raccoons (128 images, SSDLite over MobileNetV2 at 160): 3 minutes, one core",
            Recipe(
                optimizer="adamw", lr=0.002, epochs=40, batch_size=16, head_epochs=3, layer_decay=0.85, ema=0.98,
                warmup_epochs=1.0, label_smoothing=0.0, augment="detection",
            ),
        ),
        Named(
            "quantize",
            "int8 from a trained model: a few epochs at a small rate, which learn to live with rounding",
            "ours; rate and schedule after Esser et al. 2020 (arXiv 1902.08153), section 3, for eight bits",
            "67.3 % on CIFAR-10 as JPEG (MobileNet v1 0.25, 1 epoch), as int8; the float model 67.1 %",
            Recipe(quantize=True, epochs=3, warmup_epochs=0.0, label_smoothing=0.0, min_area=0.35),
        ),
        Named(
            "mobilenet_v1",
            "the paper's: RMSprop, little or no decay on depthwise filters, light augmentation",
            "arXiv 1704.04861, section 3.2; released script (TensorFlow-Slim): rate 0.045 per 64 images, times 0.94 "
            "every 2.5 epochs, decay 4e-5",
            "65.6 % on 5 kinds of flowers (MobileNet v1 0.5 at 96): 15 epochs, 4 minutes, one core",
            Recipe(
                optimizer="rmsprop", lr=0.045, schedule="exponential", gamma=0.94 ** (1 / 2.5), weight_decay=4e-5,
                label_smoothing=0.0, warmup_epochs=0.0,
            ),
        ),
        Named(
            "mobilenet_v2",
            "the paper's: RMSprop, rate times 0.98 each epoch, weight averaging as in the released code",
            "arXiv 1801.04381, section 6.1: 16 machines of 96 images each; released code: label smoothing 0.1, "
            "weight averaging 0.9999",
            "60.2 % on 5 kinds of flowers, 63.4 % with averaged weights (MobileNetV2 0.5 at 96): 15 epochs, 5 minutes, "
            "one core",
            Recipe(
                optimizer="rmsprop", batch_size=96, lr=0.045, schedule="exponential", gamma=0.98, weight_decay=4e-5,
                ema=0.9999, warmup_epochs=0.0,
            ),
        ),
        Named(
            "shufflenet",
            "the paper's: SGD, linear schedule, decay 4e-5, weaker scale augmentation",
            "arXiv 1707.01083, section 4: rate 0.5 to 0 for batch 1024 over 300,000 steps; released script: label "
            "smoothing 0.1, colour jitter 0.4",
            "65.9 % on 5 kinds of flowers (ShuffleNet 0.5x at 96): 15 epochs, 3 minutes, one core",
            Recipe(schedule="linear", lr=0.5 * 64 / 1024, weight_decay=4e-5, warmup_epochs=0.0, jitter=0.4),
        ),
        Named(
            "squeezenet",
            "the paper's: SGD, linear schedule, small rate because the network has no batch norm",
            "arXiv 1602.07360, section 3.3.1; released solver: rate 0.04 for batch 512 over 170,000 steps, decay 2e-4",
            "56.1 % on 5 kinds of flowers (SqueezeNet 1.1 at 96, batch 64, rate 0.005): 20 epochs, 7 minutes, one core",
            Recipe(
                schedule="linear", lr=0.04, batch_size=512, accumulate=8, weight_decay=2e-4, label_smoothing=0.0,
                warmup_epochs=0.0, jitter=0.0,
            ),
        ),
        Named(
            "effnet",
            "the paper's: Adam with beta1 0.75, no augmentation",
            "arXiv 1801.06434, section 5: rate 0.001; length, batch and schedule are not given",
            "65.3 % on CIFAR-10 as JPEG (MobileNet of its Table 2, 5 epochs): 3 minutes, one core",
            Recipe(
                optimizer="adam", momentum=0.75, lr=0.001, schedule="linear", augment="none", label_smoothing=0.0,
                warmup_epochs=0.0, epochs=10,
            ),
        ),
    )
}  # fmt: skip


def named(name: str) -> Recipe:
    """The recipe called `name`; DataError with the closest names if there is none."""
    if name not in NAMED:
        raise DataError(f"no recipe {name!r}; {closest(name, NAMED)}")
    return NAMED[name].recipe


def suited(side: int, small: int, trained: bool, quantize: bool) -> str:
    """The recipe's name for a network with inputs of `side` pixels, `trained` or not; up to `small` pixels is small."""
    if quantize:
        return "quantize"
    if trained:
        return "finetune"
    return "small-images" if side <= small else "photos"
