"""Training that ends between two steps, with a checkpoint, as if it were killed there."""

import pytest

from smallcnn.train.loop import Loop


def killed_at(step, monkeypatch, run):
    """Runs until this step, with a checkpoint just before it, as if the process were killed then."""
    take = Loop._step

    def killed(self, *args):
        if self._done() == step:
            self._write_checkpoint()
            raise ZeroDivisionError
        take(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_step", killed)
        with pytest.raises(ZeroDivisionError):
            run()
