"""What `smallcnn predict` prints of one answer: a line, a JSON object, or the columns of a CSV table."""

from typing import Any

from smallcnn.tasks.attributes import AttributesAnswer
from smallcnn.tasks.classification import Classification, Prediction
from smallcnn.tasks.ending import PRESENT
from smallcnn.tasks.task import Task


def columns(task: Task, count: int) -> list[str]:
    """The header of `count` labels with their probabilities."""
    what = "score" if isinstance(task, Classification) and task.ending == "none" else "probability"
    return ["label", what] + [f"{name} {place}" for place in range(2, count + 1) for name in ("label", what)]


def as_dict(seen: Prediction | AttributesAnswer, top: int | None) -> dict[str, Any]:
    """The answer as JSON, with the `top` first labels if asked for."""
    what = "score" if isinstance(seen, Prediction) and seen.ending == "none" else "probability"

    def entries(ranked: tuple[tuple[str, float], ...]) -> list[dict[str, Any]]:
        return [{"label": label, what: value} for label, value in ranked]

    record: dict[str, Any] = {}
    if isinstance(seen, Prediction):
        record |= {"label": seen.label, what: seen.probability, "top5": entries(seen.top5)}
    else:
        chosen = {question: {"label": label, what: value} for question, (label, value) in seen.chosen.items()}
        record |= {"present": entries(seen.present), "chosen": chosen}
    if top is not None:
        record["top"] = entries(seen.ranked[:top])
    if isinstance(seen, Prediction) and seen.ending == "sigmoid":
        record["present"] = entries(seen.present)
    return record


def in_words(seen: Prediction | AttributesAnswer, top: int | None) -> str:
    """The answer in one line."""
    form = "{} {:.4g}" if isinstance(seen, Prediction) and seen.ending == "none" else "{} {:.1%}"
    if top is not None:
        return ", ".join(form.format(*one) for one in seen.ranked[:top])
    if not isinstance(seen, Prediction) or seen.ending == "sigmoid":
        if seen.present:
            return ", ".join(form.format(*one) for one in seen.present)
        return f"no label reaches {PRESENT:.0%}; highest: {form.format(*seen.ranked[0])}"
    best, *others = (form.format(*one) for one in seen.ranked[:3])
    return best + (f"  (then {', '.join(others)})" if others else "")
