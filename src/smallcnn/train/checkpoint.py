"""Everything needed to resume a run exactly where it was: tensors and counters in one .safetensors file.

It is separate from the model files: only `--resume` reads `checkpoint.safetensors`.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smallcnn.errors import FileError, SmallcnnError
from smallcnn.model import tensor_file
from smallcnn.system.files import atomic
from smallcnn.train.progress import Progress
from smallcnn.train.settings import Settings


def save(
    path: Path,
    module: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    settings: Settings,
) -> None:
    """Writes the state of a run atomically. Raises FileError if it cannot be written."""
    import safetensors.torch

    tensors = {f"model.{name}": value for name, value in module.state_dict().items()}
    if average:
        tensors |= {f"average.{name}": value for name, value in average.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items() if isinstance(value, Tensor)}
    apart = torch.contiguous_format  # safetensors refuses parameters that share memory, as scales of joined edges do
    tensors = {name: value.detach().cpu().clone(memory_format=apart) for name, value in tensors.items()}
    metadata = {"progress": json.dumps(progress.to_json()), "settings": json.dumps(settings.to_json())}
    with atomic(path) as temporary:
        temporary.write_bytes(tensor_file.ordered(safetensors.torch.save(tensors, metadata)))


def read_settings(path: Path) -> Settings:
    """The settings the run was started with. Raises FileError if the file is damaged or from an older smallcnn."""
    try:
        return Settings.from_json(_read(path, tensors=False)[0])
    except SmallcnnError as error:
        said = str(error).removeprefix(f"{path}: ")
        raise FileError(f"{path}: {said}") from error


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
        return Progress.from_json(progress)
    except (RuntimeError, TypeError, ValueError, KeyError) as error:
        raise FileError(f"{path}: does not fit this run ({error})") from error


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
