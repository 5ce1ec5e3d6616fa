"""The kinds of task, by name."""

import json

from smallcnn.errors import FileError, closest
from smallcnn.ir.checks import shown
from smallcnn.tasks.attributes import Attributes
from smallcnn.tasks.classification import Classification
from smallcnn.tasks.detection import Detection
from smallcnn.tasks.task import Task

TASKS: dict[str, type[Task]] = {task.kind: task for task in (Classification, Attributes, Detection)}


def to_json(task: Task) -> str:
    """The task as a JSON object."""
    return json.dumps({"kind": task.kind} | task.to_json(), separators=(",", ":"))


def from_json(text: str) -> Task:
    """The inverse of `to_json`. Raises FileError for an unknown kind, or missing, surplus or invalid fields."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError(f"its task is not JSON: {error}") from error
    kind = fields.pop("kind", None) if isinstance(fields, dict) else None
    if not isinstance(kind, str) or kind not in TASKS:
        raise FileError(f"no task {shown(kind)}; {closest(kind if isinstance(kind, str) else '', TASKS)}")
    return TASKS[kind].from_json(fields)
