"""A test stand for kernels: compiles forms, then times them inside whole networks.

The forms to compare are put into copies of the network that run one after the other in one program, so that each finds
the caches as it would in use: its weights and its input are where the rest of the network left them. On an Emerald
Rapids (one thread, least of 30 runs), MobileNet v1 x0.5 takes 1.97 ms in such copies, 1.90 as a file; calls that follow
themselves, with warm weights, add up to 1.87. For MobileNetV2 these are 4.21, 4.28 and 3.99. Nothing is compiled while
forms are timed.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from smallcnn.compiler import build, link
from smallcnn.compiler.assemble import assemble_all
from smallcnn.compiler.calls import Call, Context
from smallcnn.compiler.targets import Target
from smallcnn.engines import compiled
from smallcnn.ir.types import Tensor


class Stand:
    """Compiles in `workers` processes, times on `threads` threads; `outputs` are the network's."""

    def __init__(
        self, context: Context, outputs: Mapping[str, Tensor], target: Target, threads: int, workers: int
    ) -> None:
        self.context, self.outputs, self.target = context, outputs, target
        self.threads, self.workers = threads, workers
        self._objects: dict[str, bytes] = {}

    def compile(self, calls: Sequence[Call], enough: Callable[[], bool] = lambda: False) -> None:
        """Compiles the kernels of the calls, in this order, until there are `enough`."""
        wanted = [call.spec for call in calls if not self.has(call)]
        self._objects |= build.build(wanted, self.context.machine, self.workers, enough=enough).objects

    def has(self, call: Call) -> bool:
        """Whether the kernel of the call is compiled."""
        return self._name(call) in self._objects

    def time(self, networks: Sequence[Sequence[Call]], runs: int) -> list[np.ndarray]:
        """Least nanoseconds of every call of every network, in `runs` runs that go through all networks."""
        return [taken.min(axis=0) for taken in self.sample(networks, runs)]

    def sample(self, networks: Sequence[Sequence[Call]], runs: int) -> list[np.ndarray]:
        """Nanoseconds of every run and call (runs, calls) of every network; each run goes through all networks."""
        names = dict.fromkeys(self._name(call) for network in networks for call in network)
        objects = {name: self._objects[name] for name in names}
        shape = self.context.input_shape
        program = assemble_all(networks, objects, self.target, "tuning", {}, shape, self.outputs)
        with tempfile.TemporaryDirectory(prefix="smallcnn-", ignore_cleanup_errors=True) as folder:
            path = Path(folder) / f"tuning{self.target.suffixes[0]}"
            link.write(program, path)
            net = compiled.load(path, self.threads)
            image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
            taken = np.array([net.time(image) for _ in range(runs)])
            del net  # unloads the file, so that the folder can be removed on Windows
        ends = np.cumsum([len(network) for network in networks])
        return np.split(taken, ends[:-1], axis=1)

    def _name(self, call: Call) -> str:
        return build.kernel_name(call.spec, self.context.machine)
