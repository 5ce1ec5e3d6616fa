"""An engine proves itself on the probe image before it answers anything else; see `model.probe`."""

from collections.abc import Callable, Mapping
from functools import cached_property

import numpy as np

from smallcnn.engines.session import Session
from smallcnn.errors import AnswerError, FileError
from smallcnn.model.metadata import Description
from smallcnn.model.probe import probe_image, relative_error, tolerance

Outputs = Mapping[str, np.ndarray]


class Proof:
    """A session's outputs for the probe image, compared with `exact`, those of the network's plain definition.

    `integer` as `Graph.integer`. `rounding` gives the error that rounding may cause in a network of bytes; None means
    that it is not known. The first answer waits only for `first`, outputs that are known sooner and nearly as good. All
    three are called when needed.
    """

    def __init__(
        self,
        session: Session,
        where: str,
        engine: str,
        exact: Callable[[], Outputs],
        first: Callable[[], Outputs],
        *,
        integer: bool,
        rounding: Callable[[], float] | None = None,
    ) -> None:
        self._session, self._where, self._engine = session, where, engine
        self.integer = integer
        self._exact, self._rounding = exact, rounding
        self._first: Callable[[], Outputs] | None = first

    @cached_property
    def allowed(self) -> float:
        """The largest error accepted."""
        usual = tolerance(integer=self.integer)
        return max(usual, self._rounding()) if self.integer and self._rounding else usual

    def error(self) -> float:
        """The largest relative error of any output; compare with `allowed`."""
        return self._error(self._exact())

    def check(self) -> None:
        """Raises AnswerError if an output is wrong; once right, the session is not checked again."""
        if self._first is None:
            return
        wanted = self._first()
        error = self._error(wanted)
        # the network's own answer may not be finite; then each answer is refused where it is given
        finite = all(np.isfinite(value).all() for value in wanted.values())
        if finite and not error <= tolerance(integer=self.integer) and not error <= self.allowed:
            raise AnswerError(
                f"{self._where}: {self._engine} gives a wrong answer on the probe image, off by {error:.1e} of its "
                "largest output; the file was changed or the engine is faulty: try another --engine"
            )
        self._first = None  # and with it the data it needs

    def _error(self, wanted: Outputs) -> float:
        answers = self._session.run(probe_image(self._session.input_shape))
        return relative_error({name: value[0] for name, value in answers.items()}, wanted)


def check_promises(said: Description, session: Session) -> None:
    """Raises FileError unless a file takes and gives what its metadata says."""
    prepared = (*said.preprocessing.size, said.preprocessing.channels)
    if session.input_shape != prepared:
        says, takes = ("x".join(map(str, sides)) for sides in (prepared, session.input_shape))
        raise FileError(f"prepares images to {says}, but takes {takes}; it was changed after smallcnn wrote it")
    promised = {name: (tensor.shape, tensor.number) for name, tensor in said.results.items()}
    given = {name: (tensor.shape, tensor.number) for name, tensor in session.outputs.items()}
    if promised != given:
        raise FileError(f"promises the outputs {promised}, but gives {given}; it was changed after smallcnn wrote it")
