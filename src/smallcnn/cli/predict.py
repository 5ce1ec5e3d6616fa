"""`smallcnn predict`."""

import csv
import io
import sys
from pathlib import Path

import click

from smallcnn.cli import options
from smallcnn.cli.show import print_json, progress, remark, say, warn_untrained
from smallcnn.errors import AnswerError, FileError, ImageError
from smallcnn.system.escape import escaped
from smallcnn.system.files import check_regular, check_suffix


@click.command("predict")
@click.argument("file", required=False, type=click.Path(path_type=Path), metavar="[FILE]")
@click.argument("images", nargs=-1, type=click.Path(path_type=Path), metavar="IMAGE...")
@click.option(
    "--top",
    type=click.IntRange(1),
    metavar="N",
    help="number of labels or objects to show per image, most probable first",
)
@click.option(
    "--csv",
    "csv_",
    is_flag=True,
    help="print a CSV table: file, label, probability, and further labels up to --top; or a line for each object: "
    "file, label, score, left, top, right, bottom",
)
@options.threshold
@options.overlap
@options.most
@click.option("--labels", metavar="NAME,...", help="labels of the objects to show, separated by commas  [default: all]")
@click.option(
    "--draw", type=click.Path(path_type=Path), metavar="FOLDER", help="folder to write images with the objects to"
)
@click.option("--coco", type=click.Path(path_type=Path), help="COCO results file to write with the objects (.json)")
@options.engine
@options.threads
@options.as_json
def command(
    file: Path | None,
    images: tuple[Path, ...],
    top: int | None,
    csv_: bool,
    threshold: float | None,
    overlap: float | None,
    most: int | None,
    labels: str | None,
    draw: Path | None,
    coco: Path | None,
    engine: str | None,
    threads: int | None,
    json_: bool,
) -> None:
    """Label each IMAGE, or every image in a folder, with FILE.

    Without FILE, the bundled model is used, which knows the ten classes of CIFAR-10. An image that cannot be decoded is
    reported, the others are still labelled, and the exit code is 2.

    A detector gives the objects in each image, by falling score: label, score, left, top, width and height in pixels.
    With --draw, it also writes each image with their boxes, and never replaces a file. --threshold, --overlap and
    --most replace what FILE says; only a .safetensors FILE can have a higher --most.

    For a network with independent labels (sigmoids), every label of at least 50 % is printed, and the best answer to
    each question of attributes. Scores are printed as they are.

    A compiled FILE (.so, .dll) is a program: opening it runs it with your permissions. Open only files that you made
    or trust. All other kinds of FILE are data.
    """
    from smallcnn import runtime
    from smallcnn.cli import answers
    from smallcnn.cli.objects import Objects
    from smallcnn.model import shipped
    from smallcnn.transform.limits import Limits

    if json_ and csv_:
        raise click.UsageError("--json and --csv cannot be combined")
    if coco:
        check_suffix(coco, ".json", "a COCO file")
    file, images = _arguments(file, images)
    net = runtime.open(file, engine=engine, threads=threads, limits=Limits(threshold, overlap, most))
    if str(file) == shipped.DEFAULT:
        remark(f"using the bundled model {net.name} ({', '.join(net.labels)}); give a FILE first to use another")
    warn_untrained(net.facts)
    objects = Objects(net, labels, draw, coco)
    named = [one for image in images for one in _images(image)]
    objects.start([name for _, name in named])
    if csv_:
        _print_row("file", *answers.columns(net.task, min(top or 1, len(net.labels))))
    records, problems = [], []
    with progress("predicting", drawn=json_ or not sys.stdout.isatty()) as report:
        paths = [path for path, _ in named]
        for number, (path, seen) in enumerate(zip(paths, net.answers(paths, top=max(top or 5, 5)), strict=True)):
            if isinstance(seen, ImageError):
                problems.append(str(seen))
            elif isinstance(seen, AnswerError):
                problems.append(f"{path}: {seen}")
            else:
                answer = objects.keep(number, path, seen)
                if json_:
                    records.append({"image": str(path), **answers.as_dict(answer, top)})
                elif csv_:
                    for cells in answers.rows(answer, top):
                        _print_row(str(path), *cells)
                else:
                    say(f"{path}: {answers.in_words(answer, top)}")
            report(number + 1, len(paths))
    if json_:
        print_json(records)
    objects.finish()
    for problem in problems[:-1]:
        remark(f"smallcnn: {problem}")
    if problems:
        raise ImageError(problems[-1])


def _arguments(file: Path | None, images: tuple[Path, ...]) -> tuple[Path, tuple[Path, ...]]:
    """The model file and the images; the bundled model if FILE is an image or a folder, or missing."""
    from smallcnn.image.decode import SUFFIXES
    from smallcnn.model import shipped
    from smallcnn.model.kinds import KINDS

    if file is None:
        raise click.UsageError("no IMAGE given")
    alone = file.is_dir() or (not images and file.suffix.lower() not in KINDS and str(file) != shipped.DEFAULT)
    if alone and not file.exists():
        raise FileError(f"{file}: no such file")
    if file.suffix.lower() in SUFFIXES or alone:
        if last := next((image for image in images if image.suffix.lower() in KINDS), None):
            raise click.UsageError(f"the model file goes first: smallcnn predict {last} IMAGE...")
        file, images = Path(shipped.DEFAULT), (file, *images)
    if not images:
        raise click.UsageError("no IMAGE given")
    return file, images


def _print_row(*cells: str) -> None:
    row = io.StringIO()
    csv.writer(row, lineterminator="").writerow(map(escaped, cells))
    click.echo(row.getvalue())


def _images(path: Path) -> list[tuple[Path, Path]]:
    """`path` itself, or the images in it if it is a folder, each with its name below it; skipped files are reported."""
    if not path.is_dir():
        check_regular(path, ImageError)
        return [(path, Path(path.name))]
    from smallcnn.data.folder import images_in  # only a folder needs the readers of data sets

    found, left_out = images_in(path)
    if line := left_out.line():
        remark(f"note: {path}: {line}")
    return [(one, one.relative_to(path)) for one in found]
