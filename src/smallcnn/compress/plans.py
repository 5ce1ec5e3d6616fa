"""Combinations of steps that may bring a network within limits of bytes and time."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from smallcnn.compress.budget import MEASURES, Budget, Form, Limits, spelled_ms
from smallcnn.compress.integers import Int8, as_int8
from smallcnn.compress.pipeline import Step
from smallcnn.compress.pruning import Prune
from smallcnn.compress.sharing import Fit, LowRank
from smallcnn.compress.workshop import Workshop
from smallcnn.errors import GraphError
from smallcnn.model import store
from smallcnn.model.model import Model
from smallcnn.transform.share.low_rank import low_rank_graph

SHARES = (0.7, 0.5, 0.35, 0.25)
"""Shares of the parameters that pruning keeps where bytes are limited."""
THIN = (0.8, 0.6, 0.4)
"""Shares of the Mult-Adds that low rank keeps: the largest that is fast enough; 0.6 where only bytes are limited."""
FORMS: dict[Form, str] = {"float32": "latency", "int8": "int8_latency"}
"""What a network may compute with, and the measure of its time."""
_SURE = 0.95


@dataclass(frozen=True)
class Plan:
    """Steps in order, and a name that says what they do."""

    name: str
    steps: tuple[Step, ...]


def plans(shop: Workshop, limits: Limits, prune: Prune) -> list[Plan]:
    """The combinations worth a try, at most a dozen. `prune` has the settings of pruning, and the epochs of each step.

    Fewer channels, low rank and int8 save time; they and shared weights save bytes.
    Raises CompileError or MissingExtra if time is limited and nothing can be compiled.
    """
    made = list(_plans(shop, limits, prune))
    return [plan for number, plan in enumerate(made) if plan.steps and plan not in made[:number]]


def _plans(shop: Workshop, limits: Limits, prune: Prune) -> Iterator[Plan]:
    for form in FORMS:
        whole = len(store.content(_in_form(shop.original, form, shop), packed=True))
        for name, reduction, share in _reductions(shop, limits, prune, form):
            fits = limits.bytes is None or whole * share <= limits.bytes
            if not fits and form == "int8" and limits.milliseconds is None:
                continue  # shared floats take as few bytes, and lose less
            names, steps = ([name], [reduction]) if reduction else ([], [])
            if limits.bytes is not None and not fits:
                names.append("shared")
                steps.append(Fit(size=limits.bytes, int8=form == "int8", epochs=prune.epochs))
            if form == "int8":
                names.append("int8")
                steps.append(Int8())
            yield Plan(", ".join(names), tuple(steps))
            if fits and (reduction is None or (isinstance(reduction, Prune) and share < 1)):
                break  # less would only lose more


def _reductions(
    shop: Workshop, limits: Limits, prune: Prune, form: Form
) -> Iterator[tuple[str, Step | None, float]]:  # fmt: skip
    """Steps that remove Mult-Adds: a name, the step, and at most which share of the parameters it leaves."""
    if limits.milliseconds is not None and shop.clock.milliseconds(shop.original, form) > limits.milliseconds:
        budget = Budget(FORMS[form], limits.milliseconds, relative=False)
        yield f"pruned to {spelled_ms(limits.milliseconds)}", replace(prune, budget=budget), 1.0
        share = next((share for share in THIN if _thin(shop, share, form) < _SURE * limits.milliseconds), None)
        if share:
            yield f"low rank {share:g}", LowRank(share=share, epochs=prune.epochs), 1.0
        return
    yield "", None, 1.0
    if limits.bytes is not None:
        yield f"low rank {THIN[1]:g}", LowRank(share=THIN[1], epochs=prune.epochs), 1.0
        for share in SHARES:
            budget = Budget("parameters", share, relative=True)
            yield f"pruned to {share:g}x parameters", replace(prune, budget=budget), share


def _thin(shop: Workshop, share: float, form: Form) -> float:
    """The ms that a network of low rank takes, by the estimate and what the original took against its own."""
    original, estimate = shop.original, MEASURES[FORMS[form]].of
    try:
        graph = low_rank_graph(original.graph, share)
    except GraphError:
        return float("inf")
    return shop.clock.milliseconds(original, form) * estimate(graph) / estimate(original.graph)


def _in_form(model: Model, form: Form, shop: Workshop) -> Model:
    """The network as float32, or quantized for its bytes alone."""
    return model if form == "float32" else as_int8(model, shop.calibration()[:2], shop.means.threads)
