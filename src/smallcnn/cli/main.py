"""The command `smallcnn`: one file per sub-command; each parses, calls one library function and prints.

Results go to stdout, progress and remarks to stderr. A user's mistake is one line and exit code 2; a bug keeps its
traceback. A command is imported when it is called, and its dependencies when it runs, so `--help` is fast.
"""

import importlib
import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import click

from smallcnn._version import __version__
from smallcnn.errors import ImageNote, SmallcnnError, closest
from smallcnn.system.escape import escaped

COMMANDS = {
    "list": "List the networks and their options.",
    "cost": "Count the Mult-Adds, parameters and memory of a network.",
    "papers": "Compare the papers' cost tables with our own counts, and show where the papers are wrong.",
    "init": "Write an untrained model file, to bench or compile it before training.",
    "import": "Turn public weights (torchvision, timm, ONNX, TF Lite, Keras) into a model file.",
    "pull": "Fetch public weights by name, as a model file.",
    "train": "Train a network on a folder of images.",
    "recipes": "List the training recipes, with cost and accuracy.",
    "shard": "Write a folder of images as tar shards, for data sets larger than a disk.",
    "boxes": "Count the boxes of an annotated set, or convert them to COCO, Pascal VOC or YOLO.",
    "evaluate": "Measure the accuracy of a model file on labelled images.",
    "analyze": "Find a network's errors, its calibration and its accuracy at other input sizes.",
    "quantize": "Turn a model file into an int8 network, and prove its accuracy.",
    "compress": "Make a model file smaller or faster, and prove its accuracy.",
    "predict": "Label images.",
    "export": "Turn a model file into ONNX.",
    "compile": "Turn a model file into one native file without dependencies.",
    "delta": "Write the update from one model file to the next, small and signed.",
    "update": "Apply an update to a model file, without ever losing it.",
    "keygen": "Make a key to sign updates with.",
    "bench": "Verify and time model files in one or more engines.",
    "study": "Repeat a paper's comparison on a laptop, with several seeds.",
    "demo": "Train, export, evaluate and time a network on handwritten digits, in about a minute.",
}


SYNONYMS = {
    "accuracy": "evaluate", "eval": "evaluate", "test": "evaluate", "val": "evaluate", "validate": "evaluate",
    "analyse": "analyze", "benchmark": "bench", "speed": "bench", "time": "bench", "timeit": "bench",
    "prune": "compress", "shrink": "compress",
    "build": "compile", "check": "evaluate", "classify": "predict", "infer": "predict", "inference": "predict",
    "run": "predict", "convert": "import FILE, to read another framework's file, or: smallcnn export FILE",
    "create": "init", "new": "init", "describe": "cost", "flops": "cost", "info": "cost", "inspect": "cost",
    "macs": "cost", "params": "cost", "profile": "cost", "show": "cost", "stats": "cost", "summary": "cost",
    "download": "pull", "fetch": "pull", "get": "pull", "weights": "pull", "finetune": "train --from FILE",
    "fine-tune": "train --from FILE", "fit": "train", "learn": "train", "resume": "train --resume --out RUN",
    "distill": "train --teacher FILE", "transfer": "train --from FILE", "load": "import", "tune": "compile --tune",
    "models": "list", "ls": "list", "networks": "list", "zoo": "list", "onnx": "export", "save": "export",
    "int8": "quantize", "ptq": "quantize", "recipe": "recipes", "table": "papers", "tables": "papers",
    "diff": "delta", "patch": "update", "upgrade": "update", "sign": "delta OLD NEW --sign KEY",
    "help": "--help", "version": "--version",
}  # fmt: skip
"""Words that users of other tools type -> what to type after `smallcnn`."""

_NO_MEMORY = (
    *("can't allocate memory", "out of memory", "failed to allocate memory", "bad allocation", "bad_alloc"),
    *("failed to map segment", "mprotect failed"),
)
"""Messages of torch, ONNX Runtime, Halide and the loader of libraries in exceptions other than MemoryError."""


class _Lazy(click.Group):
    """A group that lists its commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"smallcnn.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS:
            typed = args[0].lower()
            known = SYNONYMS.get(typed) or (typed if typed in COMMANDS else None)
            hint = (
                f"try: smallcnn {known}" if known else closest(args[0], COMMANDS, cutoff=0.7)
            )  # typing errors, no other words
            raise click.UsageError(f"no command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(version)s")
def root() -> None:
    """Turn a folder of images and a device budget into a small CNN that runs in real time on a CPU.

    MODEL is a name from `smallcnn list` with its options: mobilenet_v1:width=0.5. SOURCE is labelled images:
    a folder with one sub-folder per class or a table of attributes, such a folder as .zip or .tar, an .npz file,
    annotations of boxes, shards, or a named set (digits). FILE is a model file: .safetensors, .onnx, or compiled (.so,
    .dll).
    """


@contextmanager
def _notes_shown_once() -> Iterator[None]:
    """Prints each kind of note about images once, as a line on stderr; other warnings are shown as usual."""
    shown: set[str] = set()
    others = warnings.showwarning

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int,
        file: TextIO | None = None, line: str | None = None,
    ) -> None:  # fmt: skip
        from smallcnn.cli.show import remark

        if not isinstance(message, ImageNote):
            others(message, category, filename, lineno, file, line)
        elif (text := str(message)) not in shown:
            shown.add(text)
            remark(f"note: {text}; first image: {message.image}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", ImageNote)
        warnings.showwarning = show
        yield


def _open_closed() -> None:
    """Puts the null device where a standard stream is closed: the next file opened would take its number."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115


def main(args: list[str] | None = None) -> None:
    """Entry point: runs the command and exits with 0, 2 for a user's mistake, 130 after Ctrl-C."""
    try:
        _main(args)
    except SystemExit as ended:
        distributed = sys.modules.get("smallcnn.train.distributed")
        if distributed is None or not distributed.has_met():
            raise
        # a thread of a connection may outlive the interpreter, and would abort the process
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ended.code if isinstance(ended.code, int) else 1)


def _main(args: list[str] | None) -> None:
    _open_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for a console that cannot show a letter of a label
    try:
        if "" in (sys.argv[1:] if args is None else args):
            raise SmallcnnError("an argument is empty; a variable that is not set?")
        with _notes_shown_once():
            code = root.main(args, prog_name="smallcnn", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo("smallcnn: interrupted", err=True)
        sys.exit(130)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
    except click.ClickException as error:
        click.echo(f"smallcnn: {escaped(error.format_message())}", err=True)
        sys.exit(2)
    except SmallcnnError as error:
        click.echo(f"smallcnn: {escaped(' '.join(str(error).split()))}", err=True)
        sys.exit(2)
    except BrokenPipeError:  # `smallcnn list | head`
        sys.stderr.close()
        sys.exit(141)
    except Exception as error:
        if not (line := _of_the_system(error)):
            raise
        click.echo(f"smallcnn: {line}", err=True)
        sys.exit(2)


def _of_the_system(error: Exception) -> str | None:
    """The message for an error of the system, such as a full disk or a missing permission; None for a bug."""
    said = " ".join(str(error).split())
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        return where + (error.strerror or said or type(error).__name__)
    if isinstance(error, MemoryError) or any(sign in said.lower() for sign in _NO_MEMORY):
        return f"not enough memory{f' ({said[:200]})' if said else ''}; close other programs, or process less at once"
    return None
