"""Speed of the loader alone, in images per second of processor time: the table of docs/data.md.

    python benchmarks/loading.py SOURCE --resolution 128

One thread decodes. For each way of loading: median and range of five rounds of 640 images, all ways in turns, after
one uncounted round. Processor time gives the same figures on a busy machine; on an idle core, elapsed time is hardly
longer. The files have been read before, so they come from the system's cache.
"""

import time
from collections.abc import Callable
from statistics import median

import click
import numpy as np

from smallcnn.data.loader import batches
from smallcnn.data.memory import PreparedSplit, Remembered
from smallcnn.data.sources import open_source
from smallcnn.image.crops import shifted
from smallcnn.image.decode import decode
from smallcnn.image.fit import Preprocessing
from smallcnn.image.resample import Prepared
from smallcnn.train.augment import decoded_side, random_crop
from smallcnn.train.recipe import Recipe

_BATCH = 64
_IMAGES = 640
_ROUNDS = 5


@click.command()
@click.argument("source")
@click.option("--resolution", type=int, required=True)
def main(source: str, resolution: int) -> None:
    """Print one row per way of loading."""
    opened = open_source(source)
    rng, whole = np.random.default_rng(0), opened.splits["train"]
    split, recipe = whole.subset(rng.permutation(len(whole))[:_IMAGES].tolist()), Recipe(mirror=opened.mirror)
    preprocessing = Preprocessing((resolution, resolution))
    shorter = decoded_side(recipe, preprocessing)
    remembered = Remembered(split, 3, shorter)

    def loader(prepare: Callable[[int], Prepared]) -> Callable[[], None]:
        def run() -> None:
            for _ in batches(split, prepare, range(len(split)), batch_size=_BATCH, workers=1):
                pass

        return run

    array = np.asarray(PreparedSplit(split, preprocessing, workers=1).split.images)
    ways = {
        "as evaluation prepares them": loader(lambda i: preprocessing.prepare(split.images[i])),
        "random crops": loader(lambda i: random_crop(recipe, preprocessing, 0, i, decode(split.images[i], 3, shorter))),
        "random crops of remembered images": loader(lambda i: random_crop(recipe, preprocessing, 0, i, remembered(i))),
        "shifted and mirrored, from one array": lambda: _shift_all(array),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for counted in range(-1, _ROUNDS):
        for name, run in ways.items():
            started = time.process_time()
            run()
            if counted >= 0:
                rates[name].append(len(split) / (time.process_time() - started))
    click.echo(f"{source}, {resolution}x{resolution}, images per second of processor time")
    for name, found in rates.items():
        click.echo(f"{name}: {median(found):,.0f} ({min(found):,.0f} to {max(found):,.0f})")


def _shift_all(images: np.ndarray) -> None:
    rng, pad = np.random.default_rng(0), images.shape[1] // 8
    for start in range(0, len(images), _BATCH):
        indices = np.arange(start, min(start + _BATCH, len(images)))
        down, right = rng.integers(-pad, pad + 1, (2, len(indices)))
        shifted(images, indices, down, right, rng.random(len(indices)) < 0.5)


if __name__ == "__main__":
    main()
