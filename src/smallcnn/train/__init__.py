"""Training: how (recipe), what happens to the images (augment), the one loop (loop), resuming (checkpoint).

The package can be called as its function `run.train`: smallcnn.train("mobilenet_v1", "photos", "runs/photos").
"""

import os
import sys
from types import ModuleType
from typing import Any

# Torch's OpenMP threads wait for each other by spinning, by default 300,000 times, on the cores that the decoding
# threads and other programs want. Images per second of a whole run, MobileNet v1 0.25 shallow at 32x32 on two cores,
# alone / beside one busy process: 300,000 spins 305 / 300 to 500, 1000 spins 730 / 470, none at all 605 / 590; a larger
# network beside a busier machine fell to 18. Read when torch is first imported; whoever sets it decides.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")


class _Train(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Any:
        """See `smallcnn.train.run.train`."""
        from smallcnn.train.run import train

        return train(*args, **options)


sys.modules[__name__].__class__ = _Train
