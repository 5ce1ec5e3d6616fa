"""The models that a run writes into its folder, with the facts about how they were made."""

import platform
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

import smallcnn
from smallcnn.data.duplicates import Duplicates
from smallcnn.data.sources import Source
from smallcnn.model import store
from smallcnn.model.facts import Facts, TrainedOn
from smallcnn.model.model import Model
from smallcnn.module import GraphModule
from smallcnn.system import places
from smallcnn.train.epochs import Scores
from smallcnn.train.learner import Learner
from smallcnn.train.progress import Progress
from smallcnn.train.settings import Settings

BEST, LAST, AVERAGED = "best.safetensors", "last.safetensors", "last_ema.safetensors"


@dataclass(frozen=True)
class ModelFiles:
    """Writes the models of a run into `folder`: the last one, the last average, and the best of either."""

    folder: Path
    settings: Settings
    source: Source
    duplicates: Duplicates | None

    def write(self, learner: Learner, progress: Progress, val: Scores, averaged: Scores) -> None:
        """Writes the models at the end of an epoch, with their validation scores; `averaged` is empty without them."""
        goal = learner.objective.goal
        made = [(LAST, learner.module, val)]
        if learner.averaged and averaged:
            made.append((AVERAGED, learner.averaged, averaged))
        for name, module, scores in made:
            model = self._model(learner, module, progress, progress.epoch + 1, scores)
            if scores[goal] > progress.best:
                progress.best = scores[goal]
                store.save(model, self.folder / BEST)
            store.save(model, self.folder / name)

    def write_start(self, learner: Learner, progress: Progress, val: Scores) -> None:
        """Writes the network before its first step as the best so far, with its validation scores."""
        progress.best = val[learner.objective.goal]
        store.save(self._model(learner, learner.module, progress, 0, val), self.folder / BEST)

    def write_untrained(self, learner: Learner, progress: Progress) -> None:
        """Writes the last model of a run that was stopped before its first epoch ended."""
        store.save(self._model(learner, learner.module, progress, progress.epoch, {}), self.folder / LAST)

    def _model(self, learner: Learner, module: GraphModule, progress: Progress, epoch: int, scores: Scores) -> Model:
        settings, goal = self.settings, learner.objective.goal
        assert settings.task is not None
        start, teacher = settings.start, settings.teacher
        facts = Facts(
            model=settings.graph.name,
            start=start.to_json() if start else None,
            teacher=asdict(teacher) if teacher else None,
            recipe=asdict(settings.recipe),
            data=self._about_data(len(progress.failed)),
            epoch=epoch,
            scores={goal: scores.get(goal)},
            averaged=module is learner.averaged,
            device=learner.device.type,
            bfloat16=learner.computation.bfloat16,
            versions={
                "smallcnn": smallcnn.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
            other={name: None for name, value in {"start": start, "teacher": teacher}.items() if value is None},
        )
        return Model(*learner.stored(module), settings.task, settings.preprocessing, facts)

    def _about_data(self, skipped: int) -> TrainedOn:
        recipe, source = self.settings.recipe, self.source
        return TrainedOn(
            name=places.name(self.source.listing.place),
            fingerprint=source.fingerprint,
            seed=recipe.seed,
            val_fraction=recipe.val_fraction,
            skipped=skipped,
            left_out=source.left_out.as_dict(),
            cut=source.cut or None,
            near_duplicates=self.duplicates.as_dict() if self.duplicates else None,
            images={name: len(split) for name, split in source.splits.items()},
        )
