"""PyTorch tensors and NumPy arrays as described in pickles; their numbers are read on demand.

`BUILDERS` makes them, and the plain containers around them, for `smallcnn.checkpoints.pickles`. Each keeps its
arguments and copies nothing.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from smallcnn.checkpoints import pickles
from smallcnn.checkpoints.pickles import Builder, Named, Partial, Stub
from smallcnn.errors import FileError
from smallcnn.ir.checks import shown

BFLOAT16 = "bfloat16"  # float32 without its last 16 bits; NumPy lacks it

_NUMBERS = {  # PyTorch's storage type: its tensor type, NumPy's code
    "Double": ("float64", "<f8"), "Float": ("float32", "<f4"), "Half": ("float16", "<f2"),
    "BFloat16": (BFLOAT16, BFLOAT16), "Long": ("int64", "<i8"), "Int": ("int32", "<i4"), "Short": ("int16", "<i2"),
    "Char": ("int8", "<i1"), "Byte": ("uint8", "<u1"), "Bool": ("bool", "|b1"), "UInt16": ("uint16", "<u2"),
    "UInt32": ("uint32", "<u4"), "UInt64": ("uint64", "<u8"),
}  # fmt: skip
_OF_DTYPE = {f"torch.{dtype}": code for dtype, code in _NUMBERS.values()}
_OF_STORAGE = {f"{storage}Storage": code for storage, (_, code) in _NUMBERS.items()} | {"UntypedStorage": "<u1"}


_STRANGE = {"ComplexFloatStorage": "<c8", "ComplexDoubleStorage": "<c16", "QInt32Storage": "<i4"}  # else one byte
_QUANTIZED = (
    "quantized, 8-bit integers for PyTorch's own layers; import the float network, saved before its "
    "conversion: torch.save(model.state_dict(), 'weights.pth')"
)


def widened(halves: np.ndarray) -> np.ndarray:
    """float32 from bfloat16 given as uint16, the upper half of each number."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


class Numbers:
    """A value that can be a weight."""

    def array(self) -> np.ndarray:
        """Its numbers. Raises FileError if they are incomplete or of a type that weights cannot have."""
        raise NotImplementedError

    def stored_bytes(self) -> int:
        """Size of the array in bytes in the file's type; 0 if it is not an array."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Storage:
    """A run of `count` numbers of one type; `read` returns at least its bytes. `strange` is why it is unsupported."""

    code: str
    count: int
    read: Callable[[], Any]
    swapped: bool = False
    strange: str = ""

    @property
    def item_bytes(self) -> int:
        """Bytes per number."""
        return 2 if self.code == BFLOAT16 else np.dtype(self.code).itemsize


def storage(name: object, count: object, read: Callable[[], Any], *, swapped: bool = False) -> Storage:
    """The storage that a file names by class, such as torch.FloatStorage."""
    kind = name.name.rpartition(".")[2] if isinstance(name, Named) else ""
    code = _OF_STORAGE.get(kind)
    if not isinstance(count, int) or count < 0:
        raise FileError("damaged: a storage of unknown size")
    if code is None:
        strange = _QUANTIZED if re.match("QU?Int", kind) else f"of an unsupported number type ({shown(kind)})"
        return Storage(_STRANGE.get(kind, "<u1"), count, read, strange=strange)
    return Storage(code, count, read, swapped)


@dataclass(frozen=True, eq=False)
class Tensor(Numbers):
    """A view of a storage. `code` is its type if the storage has none."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    code: str

    def stored_bytes(self) -> int:
        """See `Numbers`."""
        return math.prod(self.shape) * self.storage.item_bytes

    def array(self) -> np.ndarray:
        """See `Numbers`."""
        if self.storage.strange:
            raise FileError(self.storage.strange)
        numbers = np.dtype("<u2" if self.code == BFLOAT16 else self.code)
        size = self.storage.count * self.storage.item_bytes // numbers.itemsize
        far = self.offset + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))
        if 0 not in self.shape and (far >= size or math.prod(self.shape) > size):
            raise FileError("larger than its storage")
        held = memoryview(self.storage.read())
        if held.nbytes < size * numbers.itemsize:
            raise FileError("cut off")
        if self.storage.swapped:
            numbers = numbers.newbyteorder(">")
        strides = [stride * numbers.itemsize for stride in self.strides]
        offset = 0 if 0 in self.shape else self.offset * numbers.itemsize
        try:
            made: np.ndarray = np.ndarray(self.shape, numbers, held, offset, strides)
        except (ValueError, TypeError, OverflowError) as error:  # more than 64 axes, for one
            raise FileError("a tensor with an impossible shape") from error
        return widened(made) if self.code == BFLOAT16 else made.astype("u1") if self.code == "|b1" else made


@dataclass(frozen=True, eq=False)
class Strange(Numbers):
    """An unsupported tensor, and why."""

    why: str

    def stored_bytes(self) -> int:
        """See `Numbers`."""
        return 0

    def array(self) -> np.ndarray:
        """See `Numbers`."""
        raise FileError(self.why)


def _tensor(held: object, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object) -> Numbers:
    """torch._utils._rebuild_tensor_v2, and the older _rebuild_tensor."""
    if not isinstance(held, Storage):
        raise FileError("damaged: a tensor without a storage")
    sizes = (offset, *shape, *strides)
    if len(shape) != len(strides) or not all(type(size) is int and 0 <= size < 2**48 for size in sizes):
        raise FileError("damaged: a tensor of impossible size")
    return Tensor(held, offset, shape, strides, held.code)


def _typed_tensor(  # torch._utils._rebuild_tensor_v3, of types that have no storage class
    held: object, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], _grad: object, _hooks: object,
    dtype: object, *_: object,
) -> Numbers:  # fmt: skip
    plain = _tensor(held, offset, shape, strides)
    name = dtype.name if isinstance(dtype, Named) else ""
    code = _OF_DTYPE.get(name)
    if code is None or not isinstance(plain, Tensor):
        return Strange(f"of an unsupported number type ({shown(name)})")
    return Tensor(plain.storage, offset, shape, strides, code)


def _strange(why: str) -> Builder:
    return lambda *_: Strange(why)


def _as_given(value: object = (), *_: object) -> object:
    return value


_PLAIN: dict[str, Builder] = {
    "torch._utils._rebuild_parameter": _as_given,
    "torch._utils._rebuild_parameter_with_state": _as_given,
    "torch._utils._rebuild_device_tensor_from_numpy": _as_given,  # for TPUs, which have no storage
    "torch._utils._rebuild_xla_tensor": _as_given,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_qtensor": _strange(_QUANTIZED),
    "torch._utils._rebuild_sparse_tensor": _strange("sparse"),
    "torch._utils._rebuild_sparse_csr_tensor": _strange("sparse"),
    "torch._utils._rebuild_nested_tensor": _strange("a nested tensor"),
    "torch._utils._rebuild_meta_tensor_no_storage": _strange("a shape without numbers (device 'meta')"),
    "torch._utils._rebuild_wrapper_subclass": _strange("of an unsupported class"),
}


def _subclass(maker: object, _kind: object, args: tuple[Any, ...], _state: object) -> object:
    """torch._tensor._rebuild_from_type_v2: a tensor with attributes or of a subclass."""
    if not isinstance(maker, Named) or maker.name not in _PLAIN:
        return Stub("torch._tensor._rebuild_from_type_v2")
    return _PLAIN[maker.name](*args)


# --- NumPy ---


class _Type(Partial):
    """numpy.dtype."""

    def __init__(self, code: object, *_: object) -> None:
        self.code = code if isinstance(code, str) and re.fullmatch("[fiub][1248]", code) else None
        self.order = "|" if self.code in ("b1", "u1", "i1") else "<"

    def take(self, state: Any) -> None:
        self.order = state[1] if state[1] in ("<", ">") else self.order


class Array(Numbers, Partial):
    """numpy.ndarray: created empty, then given shape, type and bytes; protocol 5 gives all at once."""

    def __init__(self, data: object = None, dtype: object = None, shape: Any = (), order: object = "C") -> None:
        self.data, self.dtype, self.shape, self.order = data, dtype, shape, order

    def take(self, state: Any) -> None:
        """See `Partial`."""
        _version, self.shape, self.dtype, columns, self.data = state
        self.order = "F" if columns else "C"

    def stored_bytes(self) -> int:
        """See `Numbers`."""
        return len(self.data) if isinstance(self.data, str | bytes | bytearray) else 0

    def array(self) -> np.ndarray:
        """See `Numbers`."""
        if not isinstance(self.dtype, _Type) or self.dtype.code is None:
            raise FileError("an array of something other than numbers")
        if not isinstance(self.data, str | bytes | bytearray) or self.order not in ("C", "F"):
            raise FileError("an array without its numbers")
        try:
            held = self.data.encode("latin-1") if isinstance(self.data, str) else self.data  # Python 2 had no bytes
            flat = np.frombuffer(held, np.dtype(self.dtype.order + self.dtype.code))
            return flat.reshape(self.shape, order="C" if self.order == "C" else "F")
        except (ValueError, TypeError, OverflowError) as error:
            raise FileError("an array whose size does not match its shape") from error


# --- containers ---


def _ordered(pairs: list[Any] | None = None) -> dict[Any, object]:
    """collections.OrderedDict; its entries follow, or are arguments, as in Python 2."""
    made = {pickles.key(name): value for name, value in pairs or ()}
    if pairs:
        pairs.clear()  # so that a pickle that passes one list a thousand times does not get a thousand dicts
    return made


def _reconstructed(kind: object, *_: object) -> Stub:
    return Stub(kind.name if isinstance(kind, Named) else "")


BUILDERS: dict[str, Builder] = {
    **_PLAIN,
    "torch._tensor._rebuild_from_type": _subclass,
    "torch._tensor._rebuild_from_type_v2": _subclass,
    "torch.Size": _as_given,
    **{f"{module}.multiarray._reconstruct": lambda *_: Array() for module in ("numpy.core", "numpy._core")},
    **{f"{module}.numeric._frombuffer": Array for module in ("numpy.core", "numpy._core")},
    "numpy.dtype": _Type,
    "_codecs.encode": _as_given,  # text that encodes bytes, until an array needs them
    **{f"{module}.bytes": lambda *_: b"" for module in ("builtins", "__builtin__")},  # empty bytes in protocol 2
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": lambda *_: {},
    **{f"{module}.{kind}": _as_given for module in ("builtins", "__builtin__") for kind in ("set", "frozenset")},
    **{f"{module}._reconstructor": _reconstructed for module in ("copyreg", "copy_reg")},
}
"""Builders of the values in checkpoints, by their name in pickles."""
