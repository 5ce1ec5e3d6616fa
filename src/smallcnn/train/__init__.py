"""Training: settings (recipe), augmentation (augment), the one loop (loop), resuming (checkpoint).

The package is callable, as its function `run.train`: smallcnn.train("mobilenet_v1", "photos", "runs/photos").
"""

import os
import sys
from types import ModuleType
from typing import Any

# Torch's OpenMP threads wait for each other by spinning, 300,000 times by default, on cores that the decoding threads
# and other programs need. Images per second of a whole run, MobileNet v1 0.25 shallow at 32x32 on two cores:
#     spins      alone    next to one busy process
#     300,000    305      300 to 500
#     1,000      730      470
#     0          605      590
# A larger network on a busier machine fell to 18. Torch reads the variable on import; a value set by the user wins.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")


class _Train(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Any:
        """See `smallcnn.train.run.train`."""
        from smallcnn.errors import TRAIN, require

        require("training", "train", *TRAIN)
        from smallcnn.train.run import train

        return train(*args, **options)


sys.modules[__name__].__class__ = _Train
