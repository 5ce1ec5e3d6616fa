"""`smallcnn pull`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from smallcnn.cli.options import as_json, completed
from smallcnn.cli.show import print_json, progress, remark, say, size, table


def _names() -> list[str]:
    from smallcnn.checkpoints.catalogue import CATALOGUE

    return list(CATALOGUE)


if TYPE_CHECKING:
    from smallcnn.checkpoints.catalogue import Checkpoint
    from smallcnn.model.model import Model


@click.command("pull")
@click.argument("name", required=False, shell_complete=completed(_names))
@click.option("--out", type=click.Path(path_type=Path), help="model file to write  [default: NAME.safetensors]")
@as_json
def command(name: str | None, out: Path | None, json_: bool) -> None:
    """Fetch public weights by name and turn them into a model file; without NAME, list them.

    The download is verified and cached ($SMALLCNN_CACHE); an interrupted one resumes.
    """
    from smallcnn.checkpoints.catalogue import CATALOGUE, find
    from smallcnn.errors import FileError
    from smallcnn.model import store
    from smallcnn.system.files import check_writable

    if name is None:
        _list(list(CATALOGUE), json_)
        return
    known = find(name)
    if json_:
        _list([name], json_)
        return
    out = out or Path(f"{name}.safetensors")
    if out.suffix.lower() != ".safetensors":
        raise FileError(f"{out}: a model file's name ends in .safetensors")
    check_writable(out)
    store.save(pulled(known), out)
    remark(f"{out}: {size(out.stat().st_size)}")
    say(str(out))


def pulled(known: "Checkpoint") -> "Model":
    """A checkpoint of the catalogue as a model, fetched unless cached; its origin and licence are printed on stderr."""
    from smallcnn.checkpoints.importing import import_known
    from smallcnn.system.fetch import fetch

    with progress(f"fetching {known.name}") as bar:
        path = fetch(
            known.url, member=known.member, size=known.size, sha256=known.sha256,
            report=lambda done, total: bar(done, total or 0),
        )  # fmt: skip
    made = import_known(known, path)
    reached = "" if known.top1 is None else f"; published top-1 {known.top1} %"
    remark(f"{made.graph.name}: {known.origin}; {known.licence}{reached}")
    if known.sha256 is None:
        remark("its publisher gives no SHA-256: the file is only known to have come over https")
    return made


def _list(names: list[str], json_: bool) -> None:
    from smallcnn.checkpoints.catalogue import CATALOGUE

    entries = [CATALOGUE[name] for name in names]
    if json_:
        print_json([
            {
                "name": one.name, "model": one.model, "resolution": list(one.preprocessing.size), "top1": one.top1,
                "top5": one.top5, "licence": one.licence, "origin": one.origin, "url": one.url, "sha256": one.sha256,
            }
            for one in entries
        ])  # fmt: skip
        return
    rows = [
        [
            one.name,
            one.model,
            str(one.preprocessing.size[0]),
            "-" if one.top1 is None else f"{one.top1:.1f}",
            one.licence,
        ]
        for one in entries
    ]
    table(["name", "model", "input", "published top-1 %", "licence"], rows)
