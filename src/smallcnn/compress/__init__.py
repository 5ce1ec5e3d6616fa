"""Compression: steps that make a trained network smaller or faster, each judged on images that it was not trained on.

The package is callable, as its function `pipeline.compress`:

    from smallcnn.compress.budget import Budget
    from smallcnn.compress.pruning import Prune
    smallcnn.compress("best.safetensors", "photos", "small.safetensors", [Prune(budget=Budget.parse("0.5x"))])
"""

import sys
from types import ModuleType
from typing import Any


class _Compress(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Any:
        """See `smallcnn.compress.pipeline.compress`."""
        from smallcnn.compress.pipeline import compress

        return compress(*args, **options)


sys.modules[__name__].__class__ = _Compress
