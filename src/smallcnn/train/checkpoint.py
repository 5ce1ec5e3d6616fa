"""Everything needed to resume a run exactly where it was: tensors and counters in one .safetensors file.

It is separate from the model files: only `--resume` reads `checkpoint.safetensors`.
"""

import json
from dataclasses import asdict, dataclass, field, fields
from math import isfinite
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from smallcnn.errors import FileError
from smallcnn.model import tensor_file
from smallcnn.system.files import atomic
from smallcnn.train.compute import Way


@dataclass
class Progress:
    """Position in a run. `step`, the sums, the seconds and the seconds waited for images count within the epoch.

    `failed` maps images that could not be decoded to the reason. `total` is the number of steps of the whole run if its
    minutes or patience allow fewer than the recipe, else 0; `spent` is its seconds so far.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    total: int = 0
    spent: float = 0.0
    best_top1: float = -1.0
    history: list[dict[str, Any]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


_SETTINGS: dict[str, tuple[type, ...]] = {
    "model": (str,), "graph": (str,), "preprocessing": (str,), "start": (dict, type(None)),
    "teacher": (dict, type(None)), "source": (str, type(None)), "root": (str, type(None)), "pictures": (str,),
    "recipe": (dict,), "compute": (str,),
}  # fmt: skip
"""Types of a run's settings, by name."""

_RECORD = {"epoch", "train_loss", "train_top1", "val_loss", "val_top1", "images_per_second", "seconds"}
_MOST = 1e15

_NEWER: dict[str, type] = {"cut": str, "bfloat16": bool}
"""Types of settings that older runs lack."""


def save(
    path: Path,
    module: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    settings: dict[str, Any],
) -> None:
    """Writes the state of a run atomically. Raises FileError if it cannot be written."""
    import safetensors.torch

    tensors = {f"model.{name}": value for name, value in module.state_dict().items()}
    if average:
        tensors |= {f"average.{name}": value for name, value in average.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items() if isinstance(value, Tensor)}
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    metadata = {"progress": json.dumps(asdict(progress)), "settings": json.dumps(settings)}
    with atomic(path) as temporary:
        temporary.write_bytes(tensor_file.ordered(safetensors.torch.save(tensors, metadata)))


def read_settings(path: Path) -> dict[str, Any]:
    """The settings the run was started with. Raises FileError if the file is damaged or from an older smallcnn."""
    settings = _read(path, tensors=False)[0]
    for name, kinds in _SETTINGS.items():
        if name not in settings:
            raise FileError(f"{path}: has no {name!r}; an older smallcnn wrote it, and this version cannot resume it")
        if not isinstance(settings[name], kinds):
            raise FileError(f"{path}: not a checkpoint of a training run ({name!r} is {ascii(settings[name])[:50]})")
    for name, kind in _NEWER.items():
        if not isinstance(settings.get(name, kind()), kind):
            raise FileError(f"{path}: not a checkpoint of a training run ({name!r} is {ascii(settings[name])[:50]})")
    if settings["compute"] not in get_args(Way):
        raise FileError(f"{path}: not a checkpoint of a training run ('compute' is {ascii(settings['compute'])[:50]})")
    for name, wanted in {"start": {"new_last_layer"}, "teacher": {"file", "digest"}}.items():
        if settings[name] is not None and not wanted <= settings[name].keys():
            raise FileError(f"{path}: not a checkpoint of a training run ({name!r} lacks {', '.join(sorted(wanted))})")
    return settings


def restore(path: Path, module: nn.Module, average: nn.Module | None, optimizer: torch.optim.Optimizer) -> Progress:
    """Puts a saved state back into the modules and `optimizer`. Raises FileError if the file is damaged."""
    _, progress, tensors = _read(path)
    state: dict[int, dict[str, Tensor]] = {}
    try:
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = value
        module.load_state_dict(_below("model.", tensors))
        if average:
            average.load_state_dict(_below("average.", tensors))
        optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
        _as_laid_out(optimizer)
        return _progress(progress)
    except (RuntimeError, TypeError, ValueError, KeyError) as error:
        raise FileError(f"{path}: does not fit this run ({error})") from error


def _progress(values: dict[str, Any]) -> Progress:
    """A Progress with these fields. Raises TypeError or ValueError if they are not valid."""
    progress = Progress(**values)
    for entry in fields(Progress):
        value, default = getattr(progress, entry.name), getattr(Progress(), entry.name)
        if not isinstance(value, int | float if isinstance(default, float) else type(default)):
            raise TypeError(f"{entry.name} is {ascii(value)[:50]}")
    counts = progress.epoch, progress.step, progress.seen, progress.correct, progress.total, progress.spent
    if not all(0 <= value < _MOST for value in (*counts, progress.seconds, progress.waited, progress.best_top1 + 1)):
        raise ValueError("a position before the start or beyond any end")
    if not all(_is_record(number, record) for number, record in enumerate(progress.history, 1)):
        raise ValueError("its history is not one of epochs")
    if len(progress.history) != progress.epoch:
        raise ValueError(f"a history of {len(progress.history)} epochs in epoch {progress.epoch + 1}")
    if not all(isinstance(problem, str) for problem in progress.failed.values()):
        raise TypeError("an image that could not be decoded has no reason")
    return progress


def _is_record(number: int, record: object) -> bool:
    """Whether it is what `loop` writes of epoch `number`, as reports read it; a loss alone may be no finite number."""
    if not (isinstance(record, dict) and record.keys() >= _RECORD and record["epoch"] == number):
        return False
    return all(
        type(value) in (int, float) and (key.endswith("loss") or (abs(value) < _MOST and isfinite(value)))
        for key, value in record.items()
    )


def _as_laid_out(optimizer: torch.optim.Optimizer) -> None:
    """Gives optimizer state the memory layout of its parameter, as fused optimizers assume."""
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if value.shape == parameter.shape:
                state[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _read(path: Path, tensors: bool = True) -> tuple[dict[str, Any], dict[str, Any], dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            found = {name: file.get_tensor(name).clone() for name in file.keys()} if tensors else {}  # noqa: SIM118
            # cloned: Windows cannot replace the file while an optimizer keeps pages of it mapped
        settings, progress = json.loads(metadata["settings"]), json.loads(metadata["progress"])
        if not (isinstance(settings, dict) and isinstance(progress, dict)):
            raise ValueError("no JSON objects")
        return settings, progress, found
    except (SafetensorError, OSError, KeyError, ValueError, RecursionError) as error:
        raise FileError(f"{path}: not a checkpoint of a training run, or damaged ({error})") from error
