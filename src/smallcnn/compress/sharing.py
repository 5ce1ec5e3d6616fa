"""Steps that save bytes of the file: low rank, zeros, shared values, product quantization."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from smallcnn.compress.workshop import Workshop
from smallcnn.errors import DataError
from smallcnn.model.model import Model
from smallcnn.transform.share.low_rank import low_rank
from smallcnn.transform.share.product import Codewords, quantize_products
from smallcnn.transform.share.sharing import Sharing, share


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
        model = shop.once("low rank", partial(self._cut, model))
        return _tuned(model, shop, self.epochs, keep_values=False)

    def _cut(self, model: Model) -> Model:
        graph, weights = low_rank(model.graph, model.weights, self.share)
        return replace(model, graph=graph, weights=weights)


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
        return _tuned(model, shop, self.epochs, keep_values=True)


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


def _tuned(model: Model, shop: Workshop, epochs: int, *, keep_values: bool) -> Model:
    if not epochs:
        return model
    return shop.once(f"fine-tuned, {epochs} epochs", partial(shop.fine_tuned, model, epochs, keep_values=keep_values))
