"""Validation between epochs."""

import numpy as np
import torch

from smallcnn.data.memory import PreparedSplit
from smallcnn.data.split import Split
from smallcnn.errors import DataError
from smallcnn.image.fit import Preprocessing
from smallcnn.module import GraphModule, named
from smallcnn.train.objective import Objective
from smallcnn.train.pixels import Pixels
from smallcnn.train.ranks import Ranks


class Validation:
    """Each process's share of the validation images. `failed` holds those that could not be decoded so far, by name."""

    def __init__(
        self,
        split: Split,
        preprocessing: Preprocessing,
        pixels: Pixels,
        objective: Objective,
        batch_size: int,
        workers: int | None,
        ranks: Ranks,
    ) -> None:
        share = split if ranks.alone else split.subset(ranks.slice(len(split)))
        self._images = PreparedSplit(share, preprocessing, workers)
        self.failed = self._images.failed
        self._ranks, self._pixels, self._objective, self._batch_size = ranks, pixels, objective, batch_size

    @torch.inference_mode()
    def measure(self, module: GraphModule) -> dict[str, float]:
        """The objective's scores over all processes. Leaves the module in eval mode.

        Raises DataError if no image could be decoded.
        """
        module.eval()
        judged: dict[str, list[np.ndarray]] = {}
        labels = [self._images.split.targets.take([]).array]
        for batch in self._images.batches(range(len(self._images)), self._batch_size):
            self.failed |= batch.failed
            if len(batch.indices):
                images = self._pixels.normalise(self._pixels.load(batch.images))
                outputs, targets = named(module.graph, module(images)), torch.from_numpy(batch.labels_shown)
                found = self._objective.judged(outputs, targets.to(self._pixels.device), batch.seen)
                for name, values in found.items():
                    judged.setdefault(name, []).append(values)
                labels.append(batch.labels)
        ours = {name: np.concatenate(values) for name, values in judged.items()}
        shares = self._ranks.gather((ours, np.concatenate(labels), self.failed))
        used = [(theirs, known) for theirs, known, _ in shares if len(known)]
        if not used:
            problem = next(problem for _, _, failed in shares for problem in failed.values())
            self._ranks.refuse(DataError(f"no validation image could be decoded; the first: {problem}"))
        everything = {name: np.concatenate([theirs[name] for theirs, _ in used]) for name in used[0][0]}
        return self._objective.scores(everything, np.concatenate([known for _, known in used]))
