"""Training settings as data. All of them change the result; those that should not (device, threads) go to `train`."""

from dataclasses import dataclass, field, fields
from math import cos, isfinite, pi
from typing import Any, Literal, get_args

from smallcnn.errors import DataError, closest

Optimizer = Literal["sgd", "adam", "adamw", "rmsprop"]
Schedule = Literal["cosine", "linear", "exponential", "constant"]
Augment = Literal["auto", "none", "small", "photo", "detection"]
BoxLoss = Literal["smooth_l1", "giou"]
Negatives = Literal["mined", "focal"]
BatchNorm = Literal["batch", "frozen"]
Distil = Literal["soft", "hard"]
Precision = Literal["auto", "float32", "bfloat16"]

_RATE = {"sgd": 0.1, "adam": 0.001, "adamw": 0.002, "rmsprop": 0.03}  # learning rate per 64 images of a batch
_DECAY = {"sgd": 5e-4, "adam": 0.0, "adamw": 0.05, "rmsprop": 4e-5}
GENTLE, GENTLER = 0.1, 0.01
"""Factors on the usual learning rate for a run from trained weights, with and without batch norm."""


def _about(default: Any, text: str) -> Any:
    """A field with its default and the help text of its option."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of one training run. Raises DataError for a value out of range."""

    epochs: int = _about(60, "passes over the training images")
    batch_size: int = _about(64, "images per step, summed over all machines")
    accumulate: int = _about(1, "chunks to compute each step in, to save memory; batch norm sees one chunk at a time")
    optimizer: Optimizer = _about("sgd", "optimizer: sgd (Nesterov), adam, adamw or rmsprop")
    momentum: float = _about(0.9, "momentum (sgd, rmsprop) or beta1 (adam, adamw)")
    lr: float | None = _about(
        None,
        "peak learning rate; if the recipe sets none, 0.1 (sgd), 0.001 (adam), 0.002 (adamw) or 0.03 (rmsprop) per "
        "64 images of a batch, with --from a tenth of that, or a hundredth without batch norm",
    )
    schedule: Schedule = _about(
        "cosine",
        "learning-rate schedule after warm-up: cosine decay to zero, linear decay to zero, exponential decay by "
        "--gamma per epoch, or constant",
    )
    gamma: float = _about(0.98, "decay factor per epoch of the exponential schedule")
    warmup_epochs: float = _about(3.0, "epochs of linear warm-up, at most a tenth of the run")
    weight_decay: float | None = _about(
        None,
        "weight decay of convolution and dense layers, not of depthwise filters, norms or biases; if the recipe sets "
        "none, 5e-4 (sgd), 0 (adam), 0.05 (adamw), 4e-5 (rmsprop)",
    )
    sparsity: float = _about(
        0.0,
        "strength of an L1 penalty on batch-norm scales, for channels that `compress --criterion norm` can remove; 0 "
        "for none",
    )
    label_smoothing: float = _about(0.1, "probability moved from the true class to all classes")
    ema: float = _about(
        0.0,
        "decay per step of a moving average of the weights, which is validated too; lower in early steps; 0 for none",
    )
    augment: Augment = _about(
        "auto",
        "augmentation: photo (random crop, mirror, colour), detection (crops around objects, smaller copies of the "
        "image, mirror, colour), small (shift, mirror) or none; auto: detection for boxes, else small up to 64 pixels",
    )
    mirror: bool | None = _about(
        None, "mirror half of the images  [default: yes, unless the data set is known to forbid it]"
    )
    min_area: float = _about(0.25, "smallest share of the image area that a random crop keeps (photo, detection)")
    zoom_out: float = _about(2.0, "largest factor by which half of the images shrink, on a plain canvas (detection)")
    mosaic: float = _about(0.0, "share of the images shown with three others, each in a part of the input (detection)")
    jitter: float = _about(0.2, "strength of random brightness, contrast and saturation (photo, detection)")
    mixup: float = _about(0.0, "alpha of mixup, which blends two images and their labels; 0 for none")
    cutmix: float = _about(
        0.0,
        "alpha of cutmix, which pastes in a box of another image; 0 for none; with mixup, each step uses one of them",
    )
    train_scale: float = _about(
        1.0, "training size as a share of the network's input size; smaller is faster, and often better at full size"
    )
    head_epochs: int = _about(0, "initial epochs that train only the last layer, at most a quarter of the run")
    layer_decay: float = _about(1.0, "learning-rate factor from each block to the block before it")
    batch_norm: BatchNorm = _about(
        "batch", "batch-norm statistics: the batch's own, which update the stored ones, or the stored ones, frozen"
    )
    box_loss: BoxLoss = _about(
        "smooth_l1", "loss of boxes: smooth L1 of their codes, or giou: 1 less the generalised overlap"
    )
    negatives: Negatives = _about(
        "mined", "anchors of the background: the hardest, mined, three to each with an object; or all, in a focal loss"
    )
    distil: Distil = _about(
        "soft", "teacher's output to learn: softened probabilities (soft) or the predicted label (hard)"
    )
    distil_weight: float = _about(0.7, "share of the teacher in the loss")
    temperature: float = _about(4.0, "divisor of the logits of both networks, with a soft teacher")
    precision: Precision = _about(
        "auto",
        "number format: float32, bfloat16 (autocast) or auto: bfloat16 where the processor computes in it and trial "
        "steps are quicker",
    )
    quantize: bool = _about(
        False,
        "quantization-aware training: bytes as in int8 files, from a float model with these labels (--from), which is "
        "the teacher unless another is given",
    )
    keep_values: bool = _about(
        False, "keep zero weights zero and equal weights of a layer equal, as in a compressed model (--from)"
    )
    hashed: float = _about(
        0.0, "hash the weights of each layer into this share of as many values, and train these; 0 for none"
    )
    balance: bool = _about(
        False, "weight each image's loss by the rarity of its class, so that every class counts equally"
    )
    minutes: float | None = _about(
        None,
        "minutes to train for; the schedule ends then, or after --epochs if that is sooner  [default: no limit]",
    )
    patience: int = _about(0, "epochs without a better validation top-1 before the run stops; 0 for no early stopping")
    seed: int = _about(0, "seed of the weights, image order, augmentation and validation split")
    val_fraction: float = _about(
        0.2, "share of the training images to hold out if the data set has no validation split"
    )

    def __post_init__(self) -> None:
        _check("epochs", self.epochs, self.epochs >= 1, "at least 1")
        _check("batch_size", self.batch_size, self.batch_size >= 2, "at least 2")
        parts = self.accumulate
        _check("accumulate", parts, parts >= 1 and self.batch_size % parts == 0, "a divisor of the batch size")
        _check("momentum", self.momentum, 0 <= self.momentum < 1, "at least 0 and below 1")
        _check("lr", self.lr, self.lr is None or (isfinite(self.lr) and self.lr > 0), "above 0")
        _check("gamma", self.gamma, 0 < self.gamma <= 1, "above 0 and at most 1")
        decay = self.weight_decay
        _check("weight_decay", decay, decay is None or (isfinite(decay) and decay >= 0), "at least 0")
        _check("sparsity", self.sparsity, isfinite(self.sparsity) and self.sparsity >= 0, "at least 0")
        _check("warmup_epochs", self.warmup_epochs, self.warmup_epochs >= 0, "at least 0")
        _check("label_smoothing", self.label_smoothing, 0 <= self.label_smoothing < 1, "at least 0 and below 1")
        _check("ema", self.ema, 0 <= self.ema < 1, "at least 0 and below 1")
        _check("min_area", self.min_area, 0 < self.min_area <= 1, "above 0 and at most 1")
        _check("zoom_out", self.zoom_out, 1 <= self.zoom_out <= 8, "1 to 8")
        _check("mosaic", self.mosaic, 0 <= self.mosaic <= 1, "0 to 1")
        _check("jitter", self.jitter, 0 <= self.jitter < 1, "at least 0 and below 1")
        for name in ("mixup", "cutmix"):
            alpha = getattr(self, name)
            _check(name, alpha, isfinite(alpha) and alpha >= 0, "at least 0")
        _check("train_scale", self.train_scale, 0.25 <= self.train_scale <= 2, "0.25 to 2")
        _check("head_epochs", self.head_epochs, self.head_epochs >= 0, "at least 0")
        _check("layer_decay", self.layer_decay, 0 < self.layer_decay <= 1, "above 0 and at most 1")
        _check("distil_weight", self.distil_weight, 0 <= self.distil_weight <= 1, "0 to 1")
        hot = self.temperature
        _check("temperature", hot, isfinite(hot) and hot > 0, "above 0")
        most = 0 if self.quantize else 0.5
        _check("hashed", self.hashed, 0 <= self.hashed <= most, "0 to 0.5, or 0 with quantize")
        time = self.minutes
        _check("minutes", time, time is None or (isfinite(time) and time > 0), "above 0")
        _check("patience", self.patience, self.patience >= 0, "at least 0")
        for name in ("balance", "quantize", "keep_values"):
            _check(name, getattr(self, name), isinstance(getattr(self, name), bool), "true or false")
        _check("seed", self.seed, self.seed >= 0, "at least 0")
        _check("val_fraction", self.val_fraction, 0 < self.val_fraction < 1, "between 0 and 1")
        kinds = {
            "optimizer": Optimizer, "schedule": Schedule, "augment": Augment, "batch_norm": BatchNorm,
            "box_loss": BoxLoss, "negatives": Negatives,
            "distil": Distil, "precision": Precision,
        }  # fmt: skip
        for name, kind in kinds.items():
            value = getattr(self, name)
            _check(name, value, value in get_args(kind), " or ".join(get_args(kind)))

    @property
    def peak_lr(self) -> float:
        """The learning rate after warm-up."""
        return self.lr if self.lr is not None else _RATE[self.optimizer] * self.batch_size / 64

    @property
    def decay(self) -> float:
        """The weight decay used."""
        return self.weight_decay if self.weight_decay is not None else _DECAY[self.optimizer]

    def head_only(self, epochs: float) -> int:
        """Number of initial epochs that train only the last layer, in a run of `epochs`."""
        return min(self.head_epochs, int(epochs / 4))

    def lr_at(self, step: int, steps_per_epoch: int, total: int | None = None) -> float:
        """Learning rate of step 0, 1, ...: linear warm-up, then the schedule; cosine and linear reach zero at the end.

        The epochs that train only the head use the peak rate; warm-up and schedule start after them. `total` is the
        number of steps, by default those of all epochs.
        """
        total = total or self.epochs * steps_per_epoch
        head = self.head_only(total / steps_per_epoch) * steps_per_epoch
        step, total = step - head, total - head
        if step < 0:
            return self.peak_lr
        epochs = total / steps_per_epoch
        warmup = round(min(self.warmup_epochs, epochs / 10) * steps_per_epoch)
        if step < warmup:
            return self.peak_lr * (step + 1) / (warmup + 1)
        done = (step - warmup) / max(total - warmup, 1)
        match self.schedule:
            case "cosine":
                return self.peak_lr * (1 + cos(pi * done)) / 2
            case "linear":
                return self.peak_lr * (1 - done)
            case "exponential":
                return self.peak_lr * self.gamma ** ((step - warmup) // steps_per_epoch)
            case "constant":
                return self.peak_lr

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Recipe":
        """The recipe from stored settings; DataError if one is unknown or of the wrong type."""
        check_names(values)
        try:
            return cls(**values)
        except (TypeError, OverflowError) as error:
            raise DataError(f"not the settings of a recipe ({error})") from error


def check_names(values: dict[str, Any]) -> None:
    """Raises DataError unless every key is a field of Recipe."""
    if unknown := sorted(values.keys() - {field.name for field in fields(Recipe)}):
        names = [field.name for field in fields(Recipe)]
        raise DataError(f"a recipe has no {', '.join(unknown)}; {closest(unknown[0], names)}")


def _check(name: str, value: object, good: bool, allowed: str) -> None:
    if not good:
        raise DataError(f"{name} must be {allowed}, not {value}")
