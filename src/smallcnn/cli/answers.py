"""What `smallcnn predict` prints of one answer: a line, a JSON object, or rows of a CSV table."""

from typing import Any

from smallcnn.tasks.attributes import AttributesAnswer
from smallcnn.tasks.classification import Classification, Prediction
from smallcnn.tasks.detection import Detection, DetectionAnswer, Found
from smallcnn.tasks.ending import PRESENT
from smallcnn.tasks.task import Task

_LISTED = 10
"""Objects in a line."""

Answer = Prediction | AttributesAnswer | DetectionAnswer


def columns(task: Task, count: int) -> list[str]:
    """The header: `count` labels with their probabilities, or one object."""
    if isinstance(task, Detection):
        return ["label", "score", "left", "top", "right", "bottom"]
    what = "score" if isinstance(task, Classification) and task.ending == "none" else "probability"
    return ["label", what] + [f"{name} {place}" for place in range(2, count + 1) for name in ("label", what)]


def rows(seen: Answer, top: int | None) -> list[list[str]]:
    """The answer as rows of such a table: one, or one for each object."""
    if isinstance(seen, DetectionAnswer):
        return [
            [one.label, f"{one.score:.6g}", *(f"{side:.6g}" for side in one.box)] for one in seen.found[: top or None]
        ]
    return [[cell for label, value in seen.ranked[: top or 1] for cell in (label, f"{value:.6g}")]]


def as_dict(seen: Answer, top: int | None) -> dict[str, Any]:
    """The answer as JSON, with the `top` first labels if asked for, or only the `top` first objects."""
    if isinstance(seen, DetectionAnswer):
        found = seen.found[: top or None]
        return {"objects": [{"label": one.label, "score": one.score, "box": list(one.box)} for one in found]}
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


def in_words(seen: Answer, top: int | None) -> str:
    """The answer in one line."""
    if isinstance(seen, DetectionAnswer):
        return _objects(seen.found, top or _LISTED)
    form = "{} {:.4g}" if isinstance(seen, Prediction) and seen.ending == "none" else "{} {:.1%}"
    if top is not None:
        return ", ".join(form.format(*one) for one in seen.ranked[:top])
    if not isinstance(seen, Prediction) or seen.ending == "sigmoid":
        if seen.present:
            return ", ".join(form.format(*one) for one in seen.present)
        return f"no label reaches {PRESENT:.0%}; highest: {form.format(*seen.ranked[0])}"
    best, *others = (form.format(*one) for one in seen.ranked[:3])
    return best + (f"  (then {', '.join(others)})" if others else "")


def _objects(found: tuple[Found, ...], most: int) -> str:
    """The objects with their boxes: left, top, width and height in pixels."""
    if not found:
        return "no objects"
    listed = []
    for one in found[:most]:
        left, top, right, bottom = (round(side) for side in one.box)
        listed.append(f"{one.label} {one.score:.1%} at {left},{top} {right - left}x{bottom - top}")
    if more := len(found) - most if len(found) > most else 0:
        listed.append(f"and {more} more")
    return f"{len(found)} object{'s' * (len(found) > 1)}: {'; '.join(listed)}"
