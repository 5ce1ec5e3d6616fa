"""Kernel specifications: every constant of the machine code, and nothing else.

A specification is hashable and small; equal ones are compiled once. `kernels` turns one into a Halide pipeline. Its
operands come in the order given in its docstring, the output last. Maps are (lane, x, y) or flattened (lane, pixel),
lanes innermost; a `pitch` is the numbers from one pixel to the next. Lanes are channels rounded up to whole vectors of
floats. A source holds numbers of type `number`, float32 if there is no such field; an epilogue may change the type.
"""

from dataclasses import dataclass
from typing import ClassVar

from smallcnn.compiler.arithmetic import Bytes
from smallcnn.ir.types import Grid, Number

_SLACK = 64  # bytes that the last vector may be read beyond the end


@dataclass(frozen=True)
class Elementwise:
    """One operation of an epilogue: "relu", "clip" (low, high), ..., "affine" (two operands), "prelu" (slopes), "plus",
    "minus" and "from" (the other map; `pitch`), "quantize" (scale and zero; to `number`, between low and high),
    "dequantize" (scale and zero).

    Of whole numbers: "requantize" a sum (multiplier and offset; `high`: it may be beyond 2**22), "rescale" it (the same
    for a zero of 0), "scale" bytes (factor and zero), add a "term" (factor and zero, the other bytes; `pitch`), "swish"
    (factor and zero, a sixth of steps), "round" to bytes (offset), "bound" (low, high), "table" (256 bytes).
    """

    kind: str
    low: float = 0.0
    high: float = 0.0
    pitch: int = 0
    number: Number = "float32"


Epilogue = tuple[Elementwise, ...]


@dataclass(frozen=True)
class Tile:
    """Sums held in registers: pixels x vectors; `unroll` terms per turn of the innermost loop.

    The pixels are neighbours in a row; `across`: they may run on in the next row. `widened`: weights of bytes that are
    multiplied as 16 bits are widened once for all pixels of a strip. `ahead`: with each weight, that of the next
    vectors is fetched into the second-level cache. `block`: a depthwise layer computes all rows of so many vectors of
    lanes before the next ones; 0: of all lanes at once. `side`: a 3x3 convolution computes as many outputs along either
    side of a tile together by minimal filtering (`winograd`), and `pixels` counts tiles; 0: each output by itself.
    """

    pixels: int
    vectors: int
    unroll: int = 1
    across: bool = False
    widened: bool = False
    ahead: bool = False
    block: int = 0
    side: int = 0


@dataclass(frozen=True)
class Source:
    """Where a sum over channels reads: the channels of a group are consecutive, groups are `step` lanes apart. With
    `table`, the operand is the whole arena and a second one holds the lane of each channel, or of each `run` of them.
    """

    channels: int  # per group
    pitch: int
    step: int = 0
    table: bool = False
    run: int = 1


@dataclass(frozen=True)
class Window:
    """A window over a plane; `before` are the rows above and the columns to the left that padding adds, `dilation` the
    distance between the pixels that it reads: 1 along a side with one pixel."""

    height: int
    width: int
    out_height: int
    out_width: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)

    @property
    def reach(self) -> tuple[int, int]:
        """Rows and columns from the first pixel that it reads to the last."""
        (high, wide), (down, right) = self.kernel, self.dilation
        return (high - 1) * down + 1, (wide - 1) * right + 1

    def terms(self, channels: int) -> tuple[int, ...]:
        """Extents of a sum's terms: channels of a row of the window, rows; channels, columns, rows if columns are
        apart."""
        rows, columns = self.kernel
        return (channels, columns, rows) if self.dilation[1] > 1 else (columns * channels, rows)

    @property
    def read_width(self) -> int:
        """Columns that all windows of a row cover, padding included."""
        return (self.out_width - 1) * self.stride[1] + self.reach[1]


@dataclass(frozen=True)
class Sink:
    """Where a kernel writes, after an epilogue: `lanes` per group, `groups` adjacent groups, of type `number`."""

    lanes: int
    pitch: int
    epilogue: Epilogue
    groups: int = 1
    number: Number = "float32"


@dataclass(frozen=True)
class Pointwise:
    """A 1x1 convolution over flattened pixels, or a fully connected layer (one pixel).

    Operands: source, [table], weight, bias, epilogue's, output (lane, pixel, group).
    """

    source: Source
    sink: Sink
    tile: Tile
    bytes: Bytes | None = None


@dataclass(frozen=True)
class Conv:
    """Any other dense or grouped convolution, in strips of `rows` output rows.

    `image`: the source is the image's bytes, followed by scale and shift for each byte of a row. Where it computes with
    bytes, they give those that stand for them once rounded; with `lookup`, a table (256, channels) does instead.
    Operands: source, [table], [scale, shift], weight, bias, epilogue's, output (lane, pixel, group).
    """

    window: Window
    source: Source
    image: bool
    sink: Sink
    tile: Tile
    rows: int
    bytes: Bytes | None = None
    lookup: bool = False

    @property
    def direct(self) -> bool:
        """Whether the source is read in place: no border, no columns to join, no channels to gather."""
        window = self.window
        inside = window.before == window.after == (0, 0)
        return inside and window.kernel[1] == 1 and not self.source.table and not self.image


@dataclass(frozen=True)
class Winograd:
    """A dense 3x3 convolution with stride 1 by minimal filtering, in strips of `rows` output rows, whole tiles.

    Operands: source, weight (lane, channel, vector, column, row of a tile; of bytes, those of any convolution), bias,
    epilogue's, output (lane, x, y).
    """

    window: Window
    source: Source
    sink: Sink
    tile: Tile
    rows: int
    bytes: Bytes | None = None


@dataclass(frozen=True)
class Depthwise:
    """One filter per lane; `pixels` neighbours of one vector are computed together. `relu`: applied to the input first.
    `block`: see `Tile`.

    Operands: source, weight, bias, epilogue's, output (lane, x, y).
    """

    window: Window
    pitch: int
    sink: Sink
    pixels: int
    block: int = 0
    relu: bool = False
    bytes: Bytes | None = None


@dataclass(frozen=True)
class Separable:
    """A depthwise convolution and the pointwise one that reads it, in strips of `rows`.

    Operands: source, depthwise's, weight, bias, epilogue's, output (lane, pixel, 1).
    """

    depthwise: Depthwise
    source: Source
    sink: Sink
    tile: Tile
    rows: int
    bytes: Bytes | None = None


@dataclass(frozen=True)
class Pool:
    """Maximum or average over a window; `pixels` neighbours of one vector are computed together. Padding never wins;
    an average counts it with `count_padding`.

    Operands: source, epilogue's, output (lane, x, y).
    """

    function: str
    window: Window
    count_padding: bool
    pitch: int
    sink: Sink
    pixels: int
    number: Number = "float32"
    zero: int = 0  # of bytes of which an average is taken


@dataclass(frozen=True)
class Chain:
    """Stages and the one after them, which writes the output in strips of `rows`.

    `plane` is (width, height) of the first stage's input. Operands: source (of a convolution: image, scale, shift),
    then each stage's weight, bias (a pool has none) and epilogue's, output (lane, pixel, 1); (lane, x, y) if the last
    stage has a window.
    """

    plane: tuple[int, int]
    stages: tuple[Conv | Pointwise | Depthwise | Pool, ...]
    last: Pointwise | Depthwise | Pool
    rows: int

    @property
    def folds(self) -> tuple[int, ...]:
        """Rows kept of each stage: those a strip reads."""
        kept, rows = [], self.rows
        for reader in (self.last, *self.stages[:0:-1]):
            if not isinstance(reader, Pointwise):
                rows = (rows - 1) * reader.window.stride[0] + reader.window.reach[0]
            kept.append(rows)
        return tuple(reversed(kept))

    @property
    def windowed(self) -> tuple[bool, ...]:
        """Whether each stage is read through a window, so that its rows are kept from strip to strip."""
        return tuple(isinstance(reader, Depthwise | Pool) for reader in (*self.stages[1:], self.last))


@dataclass(frozen=True)
class GlobalPool:
    """Mean over a plane. Operands: source (lane, x, y), epilogue's, output (lane,)."""

    height: int
    width: int
    pitch: int
    sink: Sink
    number: Number = "float32"
    zero: int = 0


@dataclass(frozen=True)
class Pad:
    """`zero` around a map; negative numbers cut. Operands: source, epilogue's, output (lane, x, y)."""

    window: Window
    pitch: int
    sink: Sink
    number: Number = "float32"
    zero: int = 0


@dataclass(frozen=True)
class Resize:
    """A map of `plane` (height, width) in another size: of each pixel a row and a column are chosen; with `linear` two
    of each, which are weighed.

    Operands: source, rows, columns (number of them, pixel), with `linear` the shares of the second row and of the
    second column, epilogue's, output (lane, x, y).
    """

    plane: tuple[int, int]
    size: tuple[int, int]
    linear: bool
    pitch: int
    sink: Sink
    number: Number = "float32"


@dataclass(frozen=True)
class Lanes:
    """An epilogue alone; with `scale`, times a vector first; of bytes, each less its zero.

    Operands: source, [vector], epilogue's, output (lane, pixel).
    """

    pitch: int
    scale: bool
    sink: Sink
    number: Number = "float32"
    zeros: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Gather:
    """Gathers channels from anywhere, then zeros. Operands: the arena, table, output (lane, pixel)."""

    source: Source
    lanes: int
    pitch: int
    number: Number = "float32"


@dataclass(frozen=True)
class Image:
    """Bytes to normalised floats, then zeros. Operands: image, scale, shift, output (lane, pixel); to bytes on a grid:
    image, table (256, channels), output."""

    channels: int
    lanes: int
    pitch: int
    number: Number = "float32"


@dataclass(frozen=True)
class Response:
    """x / (bias + alpha / size * sum of squares of `size` neighbouring channels) ** beta.

    Operands: source, epilogue's, output (lane, pixel), zero beyond `channels`.
    """

    size: int
    alpha: float
    beta: float
    bias: float
    channels: int
    pitch: int
    sink: Sink


@dataclass(frozen=True)
class Rows:
    """Rows of `columns` numbers, in `pieces` maps; bytes stand for numbers on `grid`."""

    pieces: int
    columns: int
    number: Number = "float32"
    grid: Grid | None = None


@dataclass(frozen=True)
class Detect:
    """A detector's end; `settings` are the constants of native/detect.c.

    Operands: pieces of the code, of the scores, of the objectness, anchors (4, row), output (lane, row).
    """

    coded: Rows
    scores: Rows
    objectness: Rows | None
    anchors: int
    most: int
    settings: tuple[tuple[str, str], ...]

    LIVE_BYTES: ClassVar[int] = 72  # an anchor that is looked at
    PLACE_BYTES: ClassVar[int] = 16  # one of a list of candidates

    @property
    def scratch_bytes(self) -> int:
        """Working memory: what native/detect.c keeps of every anchor, and two lists of what it takes."""
        each, taken = self.LIVE_BYTES + self.PLACE_BYTES + 4, self.PLACE_BYTES + 4
        return each * self.anchors + taken * self.most + 2 * _SLACK


@dataclass(frozen=True)
class Count:
    """The number of entries above 0. Operands: source (lane, pixel), output (1,)."""


@dataclass(frozen=True)
class Join:
    """Rows copied side by side. Operands: pieces, output (lane, row)."""

    rows: Rows


Native = Detect | Count | Join
"""Kernels written in C, see `native`."""
Spec = (
    Pointwise | Conv | Winograd | Depthwise | Separable | Chain | Pool | GlobalPool | Pad | Resize | Lanes | Gather
    | Image | Response | Native
)  # fmt: skip
