"""Validation between epochs."""

from collections.abc import Iterator

import numpy as np
import torch

from smallcnn.data.loader import Batch, batches
from smallcnn.data.split import Split
from smallcnn.errors import DataError
from smallcnn.image.fit import Preprocessing
from smallcnn.module import GraphModule, named
from smallcnn.train.feed import held
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
        self._split, self.failed, self._held = held(share, preprocessing, workers)
        self._ranks = ranks
        self._preprocessing, self._pixels, self._objective = preprocessing, pixels, objective
        self._batch_size, self._workers = batch_size, workers

    @torch.inference_mode()
    def measure(self, module: GraphModule) -> dict[str, float]:
        """The objective's scores over all processes. Leaves the module in eval mode.

        Raises DataError if no image could be decoded.
        """
        module.eval()
        outputs: dict[str, list[np.ndarray]] = {
            name: [np.zeros((0, *tensor.shape), np.float32)] for name, tensor in module.graph.results.items()
        }
        targets = [self._split.targets.take([]).array]
        for batch in self._batches():
            self.failed |= batch.failed
            if len(batch.labels):
                images = self._pixels.normalise(self._pixels.load(batch.images))
                for name, output in named(module.graph, module(images)).items():
                    outputs[name].append(output.cpu().numpy())
                targets.append(batch.labels)
        ours = {name: np.concatenate(found) for name, found in outputs.items()}
        shares = self._ranks.gather((ours, np.concatenate(targets), self.failed))
        if not any(len(theirs) for _, theirs, _ in shares):
            problem = next(problem for _, _, failed in shares for problem in failed.values())
            self._ranks.refuse(DataError(f"no validation image could be decoded; the first: {problem}"))
        everything = {name: np.concatenate([share[name] for share, _, _ in shares]) for name in outputs}
        return self._objective.scores(everything, np.concatenate([theirs for _, theirs, _ in shares]))

    def _batches(self) -> Iterator[Batch]:
        split = self._split
        if self._held is None:
            yield from batches(
                split,
                lambda index: self._preprocessing.prepare(split.images[index]),
                range(len(split)),
                batch_size=self._batch_size,
                workers=self._workers,
            )
            return
        for start in range(0, len(split), self._batch_size):
            chunk = np.arange(start, min(start + self._batch_size, len(split)))
            yield Batch(self._held[chunk], split.targets.take(chunk).array, chunk, {})
