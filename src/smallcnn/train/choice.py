"""Which computation a run takes: a few steps of the run's own network decide.

That the processor multiplies bfloat16 does not decide it: on such processors our float32 kernels can be two to four
times as fast as torch's autocast. torch.compile is used only on request: it takes minutes to start, and on CPUs it was
no faster than plain torch (docs/training.md).
"""

from dataclasses import dataclass
from math import inf

import torch

from smallcnn.errors import CompileError
from smallcnn.module import GraphModule
from smallcnn.train import trial
from smallcnn.train.compute import KERNELS, TORCH, Computation, Way, possible, possible_with_rounding
from smallcnn.train.fake_quantization import FakeQuantized
from smallcnn.train.ranks import Ranks
from smallcnn.train.recipe import Precision

_SHARE = 0.05  # of the run's images at most go through trial steps
_FEWEST = 8  # images in a trial step
_COMPILING = 60  # seconds; a shorter run may not gain back what compiling the kernels takes, 7 seconds on one core


@dataclass(frozen=True)
class Extent:
    """How much a run computes: `images` in all epochs and processes, `batch` in a backward pass of this process.

    It ends after `minutes` if that is sooner.
    """

    images: int
    batch: int
    minutes: float | None = None


@dataclass(frozen=True)
class Choice:
    """The chosen computation, and the reason in one line."""

    computation: Computation
    reason: str


def choose(
    way: Way,
    precision: Precision,
    module: GraphModule,
    size: tuple[int, int, int],
    device: torch.device,
    extent: Extent,
    ranks: Ranks,
) -> Choice:
    """The quickest computation among those that the options allow, for training images of `size` (H, W, C).

    A run too short to measure takes our kernels if they are compiled, else torch in float32. All processes choose
    alike, by the first one's options. The module stays unchanged.
    """
    way, precision, minutes = ranks.from_first((way, precision, extent.minutes))
    with ranks.together():
        if isinstance(module, FakeQuantized):
            found, excluded = possible_with_rounding(way, precision)
        else:
            found, excluded = possible(way, precision, device)
    shared = set.intersection(*map(set, ranks.gather(found)))
    excluded += [f"not every process can compute with {one}" for one in found if one not in shared]
    found = [one for one in found if one in shared]
    if len(found) == 1:
        return Choice(found[0], "; ".join(excluded) if way == "auto" else "chosen with --compute")

    per_image = _SHARE / (len(found) * trial.STEPS * ranks.count)
    images = extent.images
    compiled = KERNELS not in found or all(ranks.gather(_compiled()))
    if images * per_image >= _FEWEST and (minutes or not compiled):
        (rate,) = trial.rates([TORCH], module, size, _FEWEST, ranks)
        images = int(min(images, rate * 60 * (minutes or inf)))
        compiled = compiled or images / rate >= _COMPILING
    if KERNELS in found:
        why = _refusal(module, ranks) if compiled else "they are compiled for runs of a minute or longer"
        if why:
            found.remove(KERNELS)
            excluded.append(f"not our own kernels: {why}")
    if len(found) == 1:
        return Choice(found[0], "; ".join(excluded))
    if images * per_image < _FEWEST:
        return Choice(found[0], "; ".join(["too short a run to measure", *excluded]))

    # half a batch, as the candidates hold their memory at the same time and a run must not need more for its choice
    batch = max(2, min(int(images * per_image), extent.batch // 2))
    rates = ranks.from_first(trial.rates(found, module, size, batch, ranks))
    ranked = sorted(zip(rates, found, strict=True), key=lambda pair: -pair[0])
    measured = ", ".join(f"{rate:,.0f} with {one}" for rate, one in ranked)
    return Choice(ranked[0][1], "; ".join([f"images/s in trial steps: {measured}", *excluded]))


def _compiled() -> bool:
    from smallcnn.train.fast.native import is_compiled

    return is_compiled()


def _refusal(module: GraphModule, ranks: Ranks) -> str | None:
    """Why the kernels cannot compute this module in each process, None if they can; compiles them if need be."""
    why = None
    with ranks.in_turn():
        try:
            KERNELS.network(module)
        except CompileError as error:
            why = str(error)
    return next(filter(None, ranks.gather(why)), None)
