"""`smallcnn shard`."""

from pathlib import Path

import click

from smallcnn.cli.options import as_json, root
from smallcnn.cli.show import print_json, progress, remark, say, size

_MEGABYTES = 100


@click.command("shard")
@click.argument("source")
@root
@click.option("--out", required=True, type=click.Path(path_type=Path), help="folder for the shards and their index")
@click.option(
    "--size", "megabytes", type=click.IntRange(1), default=_MEGABYTES, show_default=True, help="size of a shard in MB"
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="seed of the image order")
@as_json
def command(source: str, root: Path | None, out: Path, megabytes: int, seed: int, json_: bool) -> None:
    """Write the images of SOURCE, with one class or the boxes of each, as tar shards in webdataset's format.

    The images are shuffled, so that reading them in sequence is as good as reading them at random. --out is then a
    SOURCE; so is the address of its index.json on a web server or object storage. An interrupted run resumes when it is
    started again.
    """
    from smallcnn.data.shards.write import write_shards
    from smallcnn.data.sources import listed

    read = listed(source, root=root)
    with progress("sharding") as report:
        index = write_shards(read.task, read.splits, out, shard_bytes=megabytes * 1_000_000, seed=seed, report=report)
    splits = {
        split: {
            "images": sum(len(shard.names) for shard in shards),
            "shards": len(shards),
            "bytes": sum(shard.bytes for shard in shards),
        }
        for split, shards in index.parts.items()
    }
    for split, made in splits.items():
        remark(f"{split}: {made['images']:,} images in {made['shards']} shards, {size(made['bytes'])}")
    for note in read.notes:
        remark(f"note: {note}")
    if json_:
        print_json({"folder": str(out), "splits": splits, "notes": read.notes})
    else:
        say(str(out))
