"""Ends of a run before its time: Ctrl-C and SIGTERM, which finish the step first, and a lost process."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from smallcnn.errors import SmallcnnError
from smallcnn.system.escape import escaped
from smallcnn.train.log import Quiet


@contextmanager
def asked_to_stop(log: Quiet, alone: bool) -> Iterator[threading.Event]:
    """An event set by the first Ctrl-C or SIGTERM; a second Ctrl-C interrupts at once.

    Under torchrun a second signal is ignored: torchrun forwards a signal that the terminal may already have sent, and
    kills after 30 seconds. After an error there SIGTERM keeps the handling set inside, see `end_by_itself`.
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
            log.say("stopping after this step and a checkpoint; Ctrl-C again stops at once")

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
    """Ignores SIGTERM from now on, so that this process can report its error.

    torchrun sends SIGTERM once another process has ended, and kills the rest after 30 seconds.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def end_at_once_if_uncaught(kind: type[SmallcnnError]) -> None:
    """Makes an uncaught error of this kind end the process with one line and exit code 2, as the command does.

    Nothing is torn down: a thread of a half-made connection would abort an ordinary exit.
    """
    usual = sys.excepthook

    def hook(raised: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(raised, kind):
            usual(raised, error, trace)
            return
        print(f"smallcnn: {escaped(' '.join(str(error).split()))}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(2)

    sys.excepthook = hook
