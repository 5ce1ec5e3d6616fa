"""`smallcnn boxes`."""

from pathlib import Path

import click

from smallcnn.cli.options import as_json
from smallcnn.cli.show import print_json, progress, remark, say, table


@click.command("boxes")
@click.argument("source")
@click.option("--to", "form", type=click.Choice(["coco", "voc", "yolo"]), help="format to write")
@click.option("--out", type=click.Path(path_type=Path), help="empty folder for the converted set")
@as_json
def command(source: str, form: str | None, out: Path | None, json_: bool) -> None:
    """Count the boxes of SOURCE by class and split, or convert them to another format.

    SOURCE is a folder or an archive of images with annotations (COCO, Pascal VOC, YOLO or CSV), one COCO JSON or CSV,
    or shards. Defects of the annotations are listed. With --to and --out, images and boxes are written in that format.
    """
    from smallcnn.data.boxes.convert import convert
    from smallcnn.data.boxes.counting import counted
    from smallcnn.data.sources import listed

    if (form is None) != (out is None):
        raise click.UsageError("--to and --out belong together")
    read = listed(source)
    counts = counted(read)
    notes = list(read.notes)
    if form is not None and out is not None:
        with progress("converting") as report:
            notes += convert(read.splits, read.classes, out, form, report)
    for note in notes:
        remark(f"note: {note}")
    if json_:
        print_json({"splits": counts, "notes": notes, "folder": None if out is None else str(out)})
        return
    if out is not None:
        say(str(out))
        return
    splits = list(counts)
    for key, one in counts.items():
        remark(f"{key}: {one['images']:,} images, {one['without_objects']:,} of them without objects")
    rows = [[label, *(f"{counts[key]['objects'][label]:,}" for key in splits)] for label in read.classes]
    table(["class", *splits], rows)
