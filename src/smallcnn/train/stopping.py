"""Ctrl-C and SIGTERM during a run: the step is finished and a checkpoint written first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from smallcnn.train.log import Quiet


@contextmanager
def asked_to_stop(log: Quiet, alone: bool) -> Iterator[threading.Event]:
    """An event set by the first Ctrl-C or SIGTERM; a second Ctrl-C interrupts at once.

    Not so under torchrun, which passes a signal on that the terminal may already have sent, and kills after 30 seconds.
    An error there leaves SIGTERM as it is inside, see `end_by_itself`.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def ask(_number: int, _frame: object) -> None:
        if event.is_set() and alone:
            raise KeyboardInterrupt
        event.set()
        if alone:
            log.say("stopping after this step and a checkpoint; once more to stop at once")

    old = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    except BaseException:
        if not alone:
            del old[signal.SIGTERM]
        raise
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def end_by_itself() -> None:
    """Ignores SIGTERM from now on: torchrun sends it once another process has ended, and this one has first to say why.

    torchrun kills what has not ended after 30 seconds.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
