"""The command `smallcnn`: one file per sub-command; each parses, calls one library function and prints.

Results go to stdout, progress and remarks to stderr. A user's mistake is one line and exit code 2; a bug keeps its
traceback. Commands are imported when they are called, and import what they need when they run: `--help` stays quick.
"""

import importlib
import io
import sys

import click

from smallcnn._version import __version__
from smallcnn.errors import SmallcnnError, closest
from smallcnn.escape import escaped

_COMMANDS = {
    "list": "The networks and their options.",
    "cost": "Mult-Adds, parameters and memory of a network.",
    "papers": "The papers' cost tables beside our own counts, and where the papers are wrong.",
    "init": "Write an untrained model file, to bench or compile before training.",
    "import": "Turn public weights (torchvision, timm, TF Lite, Keras) into a model file.",
    "pull": "Fetch public weights by name, as a model file.",
    "train": "Train a network on a folder of pictures.",
    "recipes": "The ways to train, with what each costs and reached.",
    "shard": "Write a folder of pictures as tar shards, for sets larger than a disk.",
    "evaluate": "Accuracy of a model file on labelled pictures.",
    "analyze": "What a trained network gets wrong, at which sizes it works, how sure it is.",
    "predict": "What is in a picture.",
    "export": "Turn a model file into ONNX.",
    "compile": "Turn a model file into one native file without dependencies.",
    "bench": "Time model files: verified, interleaved, with their range.",
    "study": "Repeat a paper's comparison on a laptop, several seeds.",
    "demo": "The whole way on handwritten digits, in a few minutes.",
}


class _Lazy(click.Group):
    """Knows its commands and their one-line help without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"smallcnn.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS:
            raise click.UsageError(f"no command {args[0]!r}; {closest(args[0], _COMMANDS)}")
        return super().resolve_command(ctx, args)


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(version)s")
def root() -> None:
    """From a folder of images and a device budget to a small CNN running in real time on a CPU.

    MODEL is a name from `smallcnn list` with its options: mobilenet_v1:width=0.5. SOURCE is a folder with one
    sub-folder per class, an .npz file or a named set (digits). FILE is a model file: .safetensors, .onnx, or compiled
    (.so, .dll).
    """


def main(args: list[str] | None = None) -> None:
    """Entry point: runs the command and exits with 0, 2 for a user's mistake, 130 after Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a console that lacks a letter of a label
    try:
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
