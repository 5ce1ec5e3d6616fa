"""The layout of a file's image: height, width and channels, and which come first."""

from onnx import TensorProto

from smallcnn.errors import FileError
from smallcnn.foreign import views
from smallcnn.onnx.read.file import File, ImageInput
from smallcnn.onnx.read.values import number_type

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
_ALIKE = ("Add", "Cast", "Div", "Identity", "Mul", "Pad", "Sub")  # operators that may come before a transpose


def input_shape(file: File, resolution: tuple[int, int] | None) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """(H, W, C) and the file's order of them, after the batch."""
    image = file.image
    if image.type not in (*_FLOATS, TensorProto.UINT8):
        raise FileError(f"takes {number_type(image.type)}; an image is floats or bytes")
    if len(image.sides) != 4:
        raise FileError(f"takes {len(image.sides)} axes; an image has (batch, channels, height, width)")
    first, last = image.sides[1] in (1, 3), image.sides[3] in (1, 3)
    if not first and not last and None in (image.sides[1], image.sides[3]):
        first, last = image.sides[1] is None, image.sides[3] is None
    if not (first or last):
        raise FileError(f"takes {sides_of(image)}; one or three channels must be first or last")
    if first and last:
        first = not _turned(file)
    order = (views.CHANNELS, views.HEIGHT, views.WIDTH) if first else (views.HEIGHT, views.WIDTH, views.CHANNELS)
    sides = dict(zip(order, image.sides[1:], strict=True))
    channels = sides[views.CHANNELS] or _read_channels(file)
    height, width = resolution or (sides[views.HEIGHT], sides[views.WIDTH])
    if height is None or width is None:
        raise FileError(f"takes {sides_of(image)}, any height and width: choose one, as in --resolution 224x224")
    return (height, width, channels), order


def _read_channels(file: File) -> int:
    """The channels that the first convolution reads, if the input leaves them open."""
    for step in file.steps:
        if step.kind == "Conv" and len(step.inputs) > 1:
            weight, group = file.constants.get(step.inputs[1]), step.attributes.get("group")
            if weight is None or weight.ndim != 4:
                break
            channels = int(weight.shape[1]) * (group.i if group else 1)
            if channels in (1, 3):
                return channels
            break
    raise FileError(f"takes {sides_of(file.image)}; one or three channels must be first or last")


def _turned(file: File) -> bool:
    """Whether the first step on the image, apart from elementwise ones, moves its channels first."""
    at = file.image.name
    while (step := next((step for step in file.steps if at in step.inputs), None)) is not None:
        if step.kind == "Transpose":
            perm = step.attributes.get("perm")
            return perm is not None and list(perm.ints) == [0, 3, 1, 2]
        if step.kind not in _ALIKE:
            return False
        at = step.outputs[0]
    return False


def sides_of(image: ImageInput) -> str:
    """The input's sides for a message."""
    return "x".join(str(side or "?") for side in image.sides)
