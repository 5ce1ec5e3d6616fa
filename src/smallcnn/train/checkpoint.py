"""Everything needed to go on with a run exactly where it was: tensors and counters in one .safetensors file.

Kept apart from the model files people use: `checkpoint.safetensors` is only read by `--resume`.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smallcnn.errors import FileError
from smallcnn.files import atomic


@dataclass
class Progress:
    """Where a run is. `step` counts within the epoch, as do the sums, the seconds and those waited for pictures.
    `failed` are pictures that could not be decoded, with what is wrong with them."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    best_top1: float = -1.0
    history: list[dict[str, Any]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def save(
    path: Path,
    module: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    settings: dict[str, Any],
) -> None:
    """Writes the state of a run in one piece. Raises FileError if it cannot be written."""
    import safetensors.torch

    tensors = {f"model.{name}": value for name, value in module.state_dict().items()}
    if average:
        tensors |= {f"average.{name}": value for name, value in average.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items() if isinstance(value, Tensor)}
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    metadata = {"progress": json.dumps(asdict(progress)), "settings": json.dumps(settings)}
    with atomic(path) as beside:
        beside.write_bytes(safetensors.torch.save(tensors, metadata))


def read_settings(path: Path) -> dict[str, Any]:
    """The settings the run was started with. Raises FileError if the file is damaged."""
    return _read(path, tensors=False)[0]


def restore(path: Path, module: nn.Module, average: nn.Module | None, optimizer: torch.optim.Optimizer) -> Progress:
    """Puts a saved state back into the modules and `optimizer`. Raises FileError if the file is damaged."""
    _, progress, tensors = _read(path)
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            state.setdefault(int(index), {})[key] = value
    try:
        module.load_state_dict(_below("model.", tensors))
        if average:
            average.load_state_dict(_below("average.", tensors))
        optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
        _as_laid_out(optimizer)
        return Progress(**progress)
    except (RuntimeError, TypeError, ValueError, KeyError) as error:
        raise FileError(f"{path}: does not fit this run ({error})") from error


def _as_laid_out(optimizer: torch.optim.Optimizer) -> None:
    """Gives what belongs to a parameter the parameter's order in memory, which fused optimizers take for granted."""
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
            # cloned: an optimizer that kept pages of this file mapped would stop Windows from replacing it
        return json.loads(metadata["settings"]), json.loads(metadata["progress"]), found
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise FileError(f"{path}: not a checkpoint of a training run, or damaged ({error})") from error
