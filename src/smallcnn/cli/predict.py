"""`smallcnn predict`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smallcnn.cli.options import as_json, engine, threads
from smallcnn.cli.show import print_json, remark, say, warn_untrained
from smallcnn.errors import AnswerError, ImageError

if TYPE_CHECKING:
    from smallcnn.runtime import Prediction


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
    for path in [inside for image in images for inside in _images(image)]:
        try:
            (seen,) = net.classify([path])
        except (ImageError, AnswerError) as error:
            problems.append(str(error) if isinstance(error, ImageError) else f"{path}: {error}")
            continue
        if json_:
            records.append({"image": str(path), **_as_dict(seen)})
        else:
            say(f"{path}: {_in_words(seen)}")
    if json_:
        print_json(records)
    for problem in problems[:-1]:
        remark(f"smallcnn: {problem}")
    if problems:
        raise ImageError(problems[-1])


def _as_dict(seen: "Prediction") -> dict[str, Any]:
    what = "score" if seen.ending == "none" else "probability"

    def entries(ranked: tuple[tuple[str, float], ...]) -> list[dict[str, Any]]:
        return [{"label": label, what: value} for label, value in ranked]

    record = {"label": seen.label, what: seen.probability, "top5": entries(seen.top5)}
    if seen.ending == "sigmoid":
        record["present"] = entries(seen.present)
    return record


def _in_words(seen: "Prediction") -> str:
    form = "{} {:.4g}" if seen.ending == "none" else "{} {:.1%}"
    if seen.ending == "sigmoid":
        from smallcnn.ending import PRESENT

        if seen.present:
            return ", ".join(form.format(*one) for one in seen.present)
        return f"no label reaches {PRESENT:.0%}; highest: {form.format(*seen.top5[0])}"
    best, *others = (form.format(*one) for one in seen.top5[:3])
    return best + (f"  (then {', '.join(others)})" if others else "")


def _images(path: Path) -> list[Path]:
    """`path` itself, or the images in the folder it is; what is left out there is said."""
    from smallcnn.data.folder import images_in

    if not path.is_dir():
        return [path]
    found, left_out = images_in(path)
    if line := left_out.line():
        remark(f"note: {path}: {line}")
    return found
