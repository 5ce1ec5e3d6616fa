"""Steps that save bytes of the file: low rank, zeros, shared and hashed values, product quantization."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from smallcnn.compress.integers import as_int8
from smallcnn.compress.workshop import Workshop
from smallcnn.errors import DataError
from smallcnn.ir import ops
from smallcnn.model import store
from smallcnn.model.codecs.packing import pack
from smallcnn.model.model import Model
from smallcnn.system.words import several
from smallcnn.train.recipe import GENTLER, BatchNorm, Recipe
from smallcnn.transform.share.hashed import check_share, hashed
from smallcnn.transform.share.layers import shortened
from smallcnn.transform.share.low_rank import low_rank
from smallcnn.transform.share.product import Codewords, quantize_products
from smallcnn.transform.share.sharing import Sharing, share

_FACTS, _TRAINED = 500, 800
"""Bytes for the facts that later steps add to a file, and more for those of training."""
_ENOUGH = 0.97
"""Share of a size from which another try is not worth its time."""
_TRIES = 4
_FEW = 2


@dataclass(frozen=True, kw_only=True)
class _Tuned:
    """A step that may be followed by `epochs` of fine-tuning."""

    epochs: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 0:
            raise DataError(f"epochs must be at least 0, not {self.epochs}")

    @property
    def trains(self) -> bool:
        """Whether there is fine-tuning."""
        return self.epochs > 0


@dataclass(frozen=True, kw_only=True)
class LowRank(_Tuned):
    """Cuts dense layers and 1x1 convolutions in two thin ones, of `share` of their Mult-Adds; then fine-tunes."""

    kind: ClassVar[str] = "low-rank"
    share: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share < 1:
            raise DataError(f"low rank keeps a share above 0 and below 1 of the Mult-Adds, not {self.share:g}")

    def apply(self, model: Model, shop: Workshop) -> Model:
        """The model with thin layers. Raises GraphError if it has no layer for them."""
        model = shop.once("low rank", partial(self._cut, model, shop))
        return _tuned(model, shop, self.epochs, keep_values=False)

    def _cut(self, model: Model, shop: Workshop) -> Model:
        from smallcnn.engines.operators import Operators

        how = partial(Operators, threads=shop.means.threads)
        return low_rank(model, shop.calibration(), self.share, operators=how)


@dataclass(frozen=True, kw_only=True)
class Zeros(_Tuned):
    """Makes the smallest weights of each layer zero, up to a share of `zeros`, in `rounds` with fine-tuning between.

    What is zero stays zero. The share grows fast at first: after round r of n it is zeros * (1 - (1 - r/n)^3) (Zhu and
    Gupta 2017, arXiv 1710.01878).
    """

    kind: ClassVar[str] = "sparse"
    zeros: float
    rounds: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rounds < 1 or not self.zeros:
            raise DataError("a share of zeros must be above 0, and rounds at least 1")
        Sharing(zeros=self.zeros)

    def apply(self, model: Model, shop: Workshop) -> Model:
        """The model with zeros; in one round if there is no training between."""
        rounds = self.rounds if self.epochs else 1
        for number in range(1, rounds + 1):
            part = self.zeros * (1 - (1 - number / rounds) ** 3)
            made = partial(_replaced, model, shop, partial(share, sharing=Sharing(zeros=part)))
            model = shop.once(f"{part:.0%} zeros", made)
            epochs = self.epochs * number // rounds - self.epochs * (number - 1) // rounds
            model = _tuned(model, shop, epochs, keep_values=True)
        return model


@dataclass(frozen=True, kw_only=True)
class Share(_Tuned):
    """Shares weights within layers, as `sharing` says, then fine-tunes the shared values for `epochs`."""

    kind: ClassVar[str] = "share"
    sharing: Sharing

    def apply(self, model: Model, shop: Workshop) -> Model:
        """The model with shared values."""
        how = f"in {self.sharing.bits} bits" if self.sharing.bits else f"in {self.sharing.budget:,} bytes"
        model = shop.once(f"shared {how}", partial(_replaced, model, shop, partial(share, sharing=self.sharing)))
        return _tuned_values(model, shop, self.epochs)


@dataclass(frozen=True, kw_only=True)
class Hash(_Tuned):
    """Hashes weights within layers, into `share` as many values as weights; then trains the values for `epochs`.

    Little of what the network knew is left, so it is trained at the usual rate, as from scratch, or without batch norm
    at a tenth of it. Then all weights are rounded to 11 bits, as half floats have, which halves their packed bytes.
    """

    kind: ClassVar[str] = "hashed"
    share: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share(self.share)

    def apply(self, model: Model, shop: Workshop) -> Model:
        """The model with hashed weights. Raises GraphError if no layer is large enough."""
        model = shop.once(f"hashed, {self.share:.3g} of the values", partial(self._hashed, model, shop.means.seed))
        normed = any(isinstance(node.op, ops.BatchNorm) for node in model.graph)
        rate = Recipe().peak_lr * (1 if normed else 0.1)
        model = _tuned(model, shop, self.epochs, keep_values=True, lr=rate)
        return shop.once("rounded to 11 bits", partial(self._rounded, model))

    def _hashed(self, model: Model, seed: int) -> Model:
        return replace(model, weights=hashed(model.graph, model.weights, self.share, seed))

    def _rounded(self, model: Model) -> Model:
        return replace(model, weights={name: shortened(value) for name, value in model.weights.items()})


@dataclass(frozen=True, kw_only=True)
class Fit(_Tuned):
    """Shares weights within layers, in bits by sensitivity, so that the packed file has `size` bytes; then fine-tunes.

    With `int8`, it is the file of the network once the step `Int8` has quantized it. Some bytes are left for what
    training adds to the file's facts.
    """

    kind: ClassVar[str] = "fit"
    size: int
    int8: bool = False

    def apply(self, model: Model, shop: Workshop) -> Model:
        """The model with shared values; unchanged if it fits as it is. Raises DataError if the bytes are too few."""
        model = shop.once(f"shared for {self.size:,} bytes", partial(self._fitted, model, shop))
        return _tuned_values(model, shop, self.epochs)

    def _fitted(self, model: Model, shop: Workshop) -> Model:
        """Tries a budget for the weights, and corrects it by the bytes of the file that comes out."""
        room = self.size - max(self.size // 200, _FACTS + bool(self.epochs) * _TRAINED)
        form = self._form(model, shop)
        whole, packed = len(store.content(form, packed=True)), pack(form.graph, form.weights)
        if whole <= room:
            return model
        budget = room - whole + (len(packed[1]) if packed else 0)
        found: list[tuple[int, Model]] = []
        for _ in range(_TRIES):
            if budget < 1:
                raise DataError(
                    f"{self.size:,} bytes are too few: without its weights the file takes {room - budget:,}"
                )
            made = _replaced(model, shop, partial(share, sharing=Sharing(budget=budget)))
            taken = len(store.content(self._form(made, shop), packed=True))
            found.append((taken, made))
            if _ENOUGH * room <= taken <= room:
                break
            budget += int((1 + _ENOUGH) / 2 * room) - taken
        within = [one for one in found if one[0] <= room]
        if not within:
            raise DataError(
                f"{self.size:,} bytes are too few: the smallest file found takes {min(taken for taken, _ in found):,}"
            )
        return max(within, key=lambda one: one[0])[1]

    def _form(self, model: Model, shop: Workshop) -> Model:
        """The network in the form whose bytes count, calibrated on few images: that changes no more than numbers."""
        if not self.int8:
            return model
        return as_int8(model, shop.calibration()[:_FEW], shop.means.threads)


@dataclass(frozen=True, kw_only=True)
class Product:
    """Product quantization; see `transform.share.product`. Training would part the equal vectors, so there is none."""

    kind: ClassVar[str] = "product"
    trains: ClassVar[bool] = False
    codewords: Codewords

    def apply(self, model: Model, shop: Workshop) -> Model:
        """The model with codewords. Raises GraphError if no layer gains by them."""
        name = f"{self.codewords.words} codewords of {self.codewords.length}"
        return shop.once(name, partial(_replaced, model, shop, partial(quantize_products, codewords=self.codewords)))


def _replaced(model: Model, shop: Workshop, change: Callable[..., tuple[Model, Any]]) -> Model:
    from smallcnn.engines.operators import Operators

    made, _ = change(model, shop.calibration(), operators=lambda graph: Operators(graph, shop.means.threads))
    return made


def _tuned_values(model: Model, shop: Workshop, epochs: int) -> Model:
    """Trained as a network without batch norm: what is left of it are the scales of the shared values."""
    return _tuned(model, shop, epochs, keep_values=True, batch_norm="frozen", lr=GENTLER * Recipe().peak_lr)


def _tuned(
    model: Model, shop: Workshop, epochs: int, *, keep_values: bool, batch_norm: BatchNorm = "batch",
    lr: float | None = None,
) -> Model:  # fmt: skip
    if not epochs:
        return model
    make = partial(shop.fine_tuned, model, epochs, keep_values=keep_values, batch_norm=batch_norm, lr=lr)
    return shop.once(f"fine-tuned, {several(epochs, 'epoch')}", make)
