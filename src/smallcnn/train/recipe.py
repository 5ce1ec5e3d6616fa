"""How to train, as data. Everything here changes the result; what should not (device, threads) is told to `train`."""

from dataclasses import dataclass, field, fields
from math import cos, isfinite, pi
from typing import Any, Literal, get_args

from smallcnn.errors import DataError

Optimizer = Literal["sgd", "adamw"]
Augment = Literal["auto", "none", "small", "photo"]
Precision = Literal["auto", "float32", "bfloat16"]


def _about(default: Any, text: str) -> Any:
    """A field with its default and the line of help that the command shows."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of one training run. Raises DataError on a value out of range."""

    epochs: int = _about(60, "passes over the training pictures")
    batch_size: int = _about(64, "pictures per step")
    optimizer: Optimizer = _about("sgd", "sgd (Nesterov momentum 0.9) or adamw")
    lr: float | None = _about(
        None,
        "peak learning rate; left out, 0.1 (sgd) or 0.002 (adamw) per 64 pictures of a batch; with --from a tenth of "
        "it, a hundredth without batch norms",
    )
    weight_decay: float | None = _about(
        None,
        "on convolution and dense weights, not on depthwise ones, norms, biases; left out, 5e-4 (sgd), 0.05 (adamw)",
    )
    warmup_epochs: float = _about(3.0, "epochs of linear warm-up before the cosine; at most a tenth of the run")
    label_smoothing: float = _about(0.1, "probability taken from the true class and spread over all")
    augment: Augment = _about(
        "auto", "photo (random crop, mirror, colour), small (shift, mirror), none; auto is small up to 64 pixels"
    )
    mirror: bool | None = _about(
        None, "mirror half of the pictures; left out, yes unless the set is known to forbid it"
    )
    min_area: float = _about(0.25, "smallest part of the picture that a random crop keeps (photo)")
    jitter: float = _about(0.2, "strength of random brightness, contrast and saturation (photo)")
    precision: Precision = _about(
        "auto", "float32, bfloat16 (autocast), auto: bfloat16 where the processor computes in it"
    )
    seed: int = _about(0, "of weights, order, augmentation and the validation part that is cut off")
    val_fraction: float = _about(0.2, "part of the training pictures kept for validation where the set has none")

    def __post_init__(self) -> None:
        _check("epochs", self.epochs, self.epochs >= 1, "at least 1")
        _check("batch_size", self.batch_size, self.batch_size >= 2, "at least 2")
        _check("lr", self.lr, self.lr is None or (isfinite(self.lr) and self.lr > 0), "above 0")
        decay = self.weight_decay
        _check("weight_decay", decay, decay is None or (isfinite(decay) and decay >= 0), "at least 0")
        _check("warmup_epochs", self.warmup_epochs, self.warmup_epochs >= 0, "at least 0")
        _check("label_smoothing", self.label_smoothing, 0 <= self.label_smoothing < 1, "at least 0 and below 1")
        _check("min_area", self.min_area, 0 < self.min_area <= 1, "above 0 and at most 1")
        _check("jitter", self.jitter, 0 <= self.jitter < 1, "at least 0 and below 1")
        _check("seed", self.seed, self.seed >= 0, "at least 0")
        _check("val_fraction", self.val_fraction, 0 < self.val_fraction < 1, "between 0 and 1")
        for name, kind in (("optimizer", Optimizer), ("augment", Augment), ("precision", Precision)):
            value = getattr(self, name)
            _check(name, value, value in get_args(kind), " or ".join(get_args(kind)))

    @property
    def peak_lr(self) -> float:
        """The learning rate after warm-up."""
        base = {"sgd": 0.1, "adamw": 0.002}[self.optimizer]
        return self.lr if self.lr is not None else base * self.batch_size / 64

    @property
    def decay(self) -> float:
        """The weight decay used."""
        return self.weight_decay if self.weight_decay is not None else {"sgd": 5e-4, "adamw": 0.05}[self.optimizer]

    def lr_at(self, step: int, steps_per_epoch: int) -> float:
        """Learning rate of step 0, 1, ...: linear warm-up, then half a cosine down to zero after the last step."""
        total = self.epochs * steps_per_epoch
        warmup = round(min(self.warmup_epochs, self.epochs / 10) * steps_per_epoch)
        if step < warmup:
            return self.peak_lr * (step + 1) / (warmup + 1)
        return self.peak_lr * (1 + cos(pi * (step - warmup) / max(total - warmup, 1))) / 2

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Recipe":
        """From stored settings; DataError if one is unknown."""
        names = {field.name for field in fields(cls)}
        if unknown := sorted(values.keys() - names):
            raise DataError(f"a recipe has no {', '.join(unknown)}")
        return cls(**values)


def _check(name: str, value: object, good: bool, allowed: str) -> None:
    if not good:
        raise DataError(f"{name} must be {allowed}, not {value}")
