"""`smallcnn predict`."""

from pathlib import Path

import click

from smallcnn.cli.options import as_json, engine, threads
from smallcnn.cli.show import print_json, remark, warn_untrained
from smallcnn.errors import ImageError


@click.command("predict")
@click.argument("file", required=False, type=click.Path(path_type=Path), metavar="[FILE]")
@click.argument("images", nargs=-1, type=click.Path(path_type=Path), metavar="IMAGE...")
@engine
@threads
@as_json
def command(file: Path | None, images: tuple[Path, ...], engine: str | None, threads: int | None, json_: bool) -> None:
    """What FILE sees in each IMAGE; of a folder, in every picture inside.

    Without FILE the network that comes with smallcnn is asked, which knows the ten classes of CIFAR-10. If some
    pictures cannot be decoded the others are still answered; the exit code is then 2.

    A compiled FILE (.so, .dll) is a program and runs with your rights: open only those you made or trust. All other
    kinds of FILE are data.
    """
    from smallcnn import runtime, shipped
    from smallcnn.data.decode import SUFFIXES

    if file is None:
        raise click.UsageError("which IMAGE?")
    if file.suffix.lower() in SUFFIXES or (file.is_dir() and not images):
        file, images = Path(shipped.DEFAULT), (file, *images)
    if not images:
        raise click.UsageError("which IMAGE?")
    net = runtime.open(file, engine=engine, threads=threads)
    if str(file) == shipped.DEFAULT:
        remark(
            f"asking {net.name}, which knows {', '.join(net.labels)}; with FILE before the pictures, another network"
        )
    warn_untrained(net.facts)
    records, problems = [], []
    for path in [picture for image in images for picture in _pictures(image)]:
        try:
            (seen,) = net.classify([path])
        except ImageError as error:
            problems.append(str(error))
            continue
        if json_:
            records.append({
                "image": str(path), "label": seen.label, "probability": seen.probability,
                "top5": [{"label": label, "probability": probability} for label, probability in seen.top5],
            })  # fmt: skip
        else:
            others = ", ".join(f"{label} {probability:.1%}" for label, probability in seen.top5[1:3])
            click.echo(f"{path}: {seen.label} {seen.probability:.1%}" + (f"  (then {others})" if others else ""))
    if json_:
        print_json(records)
    for problem in problems[:-1]:
        click.echo(f"smallcnn: {problem}", err=True)
    if problems:
        raise ImageError(problems[-1])


def _pictures(path: Path) -> list[Path]:
    """`path` itself, or the picture files in the folder it is."""
    from smallcnn.data.decode import SUFFIXES

    if not path.is_dir():
        return [path]
    found = sorted(inside for inside in path.rglob("*") if inside.suffix.lower() in SUFFIXES and inside.name[0] != ".")
    if not found:
        raise ImageError(f"{path}: no pictures in this folder")
    return found
