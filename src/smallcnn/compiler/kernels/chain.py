"""Several layers as one kernel, with sliding windows: an inverted residual, or a network's first blocks.

    stage 0   convolution of the image, or pointwise, depthwise or pool of a map
    stage i   pointwise, depthwise or pool of the stage before it, nothing outside the plane
    the last  pointwise, with the epilogue that may add a residual; or depthwise or pool

For each strip of output rows every stage computes only the rows that the previous strip did not need. They stay in a
buffer of a few rows, folded so that everything fits the second-level cache. The maps between the stages never exist as
a whole: in MobileNetV2 they are six times as wide as a block's input and output (section 5.1).
"""

from typing import Any

from smallcnn.compiler.arithmetic import Bytes, Machine, depth_of
from smallcnn.compiler.kernels.conv import image_rows, offset
from smallcnn.compiler.kernels.depthwise import ByteTaps, Taps, read_by, taps_of
from smallcnn.compiler.kernels.pipe import Pipe
from smallcnn.compiler.kernels.pool import Over
from smallcnn.compiler.kernels.rows import Rows
from smallcnn.compiler.kernels.terms import number_of
from smallcnn.compiler.specs import Chain, Conv, Depthwise, Pointwise, Pool


def chain(spec: Chain, machine: Machine) -> Any:
    """All stages of a specification."""
    pipe = Pipe(machine)
    (width, height), first = spec.plane, spec.stages[0]
    made: list[Any] = []
    source: Any = None
    if isinstance(first, Pointwise):
        depth = depth_of(first.source.channels, first.bytes, machine)
        source = pipe.plane(depth, width, height, first.source.pitch, number_of(first.bytes))
    elif isinstance(first, Depthwise | Pool):
        number = number_of(first.bytes) if isinstance(first, Depthwise) else first.number
        source = pipe.plane(first.sink.lanes, width, height, first.pitch, number)
    for stage, following in zip(spec.stages, (*spec.stages[1:], spec.last), strict=True):
        if isinstance(stage, Depthwise | Pool):
            reader = following.bytes if isinstance(following, Pointwise) else None
            made.append(_windowed(pipe, stage, source, reader))
            width, height = stage.window.out_width, stage.window.out_height
        elif isinstance(stage, Conv):
            made.append(_first_conv(pipe, stage))
            width, height = stage.window.out_width, stage.window.out_height
        else:
            read = lambda k, x, y, *_, source=source: source[k, x, y]  # noqa: E731
            depth = depth_of(stage.source.channels, stage.bytes, machine)
            ready = bool(made)
            made.append(Rows(pipe, stage.sink, stage.bytes, read, (depth,), stage.tile, (width, height), ready=ready))
        source = made[-1].out
    last: Any
    if isinstance(spec.last, Pointwise):
        last = read_by(spec.last, pipe, source, (width, height))
        strip = last.schedule(spec.rows)
    else:
        last = _windowed(pipe, spec.last, source)
        last.schedule()
        strip = last.strips(spec.rows)
    for of, stage, fold, window in zip(spec.stages, made, spec.folds, spec.windowed, strict=True):
        stage.schedule()
        stage.out.bound(stage.c, 0, of.sink.lanes).compute_at(last.out, strip)
        if window:
            stage.out.store_root().fold_storage(stage.y, fold)
        for func in stage.feeds:
            func.compute_at(last.out, strip)
    return last.finish()


def _windowed(pipe: Pipe, spec: Depthwise | Pool, source: Any, reader: Bytes | None = None) -> Taps | ByteTaps | Over:
    if isinstance(spec, Depthwise):
        return taps_of(pipe, spec, source, reader)
    return Over(pipe, spec, source, reader)


def _first_conv(pipe: Pipe, spec: Conv) -> Rows:
    """The convolution of the image, which reads its normalised rows."""
    window, channels = spec.window, spec.source.channels
    rows = image_rows(pipe, spec)
    down, right = window.stride

    def read(k: Any, x: Any, y: Any, _: Any, *taps: Any) -> Any:
        i, j = offset(window, taps)
        return rows[(x * right + i - window.before[1]) * channels + k, y * down + j]

    plane = (window.out_width, window.out_height)
    made = Rows(pipe, spec.sink, spec.bytes, read, window.terms(channels), spec.tile, plane, ready=True)
    made.feeds = [rows]
    return made
