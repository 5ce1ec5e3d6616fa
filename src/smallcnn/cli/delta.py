"""`smallcnn delta`."""

from pathlib import Path

import click

from smallcnn.cli import options
from smallcnn.cli.show import print_json, remark, say, size


@click.command("delta")
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="delta to write (.delta)")
@click.option(
    "--sign", type=click.Path(path_type=Path), metavar="KEY", help="private key to sign with, from `smallcnn keygen`"
)
@click.option("--line", metavar="NAME", help="name of the model line  [default: the name of OLD, without its ending]")
@click.option(
    "--from-version", type=click.IntRange(0), default=1, show_default=True, metavar="N", help="version of OLD"
)
@click.option("--to-version", type=click.IntRange(0), metavar="N", help="version of NEW  [default: the next after OLD]")
@options.as_json
def command(
    old: Path,
    new: Path,
    out: Path,
    sign: Path | None,
    line: str | None,
    from_version: int,
    to_version: int | None,
    json_: bool,
) -> None:
    """Write the update that turns the file OLD into NEW, as small as possible.

    Model files are compared tensor by tensor, compiled and other files by their bytes. The update is applied and
    compared with NEW before it is written. `smallcnn update` takes it to any device that has OLD.
    """
    from smallcnn.delta.making import make_delta
    from smallcnn.system.files import check_suffix

    check_suffix(out, ".delta", "an update")
    made = make_delta(old, new, out, line=line, old_version=from_version, new_version=to_version, sign=sign)
    header = made.header
    share = made.delta_bytes / header.new_size
    if json_:
        print_json({
            "file": str(out), "line": header.line, "from_version": header.old_version,
            "to_version": header.new_version, "signer": header.signer.hex() if header.signed else None,
            "old_sha256": header.old_hash.hex(), "new_sha256": header.new_hash.hex(), "old_bytes": header.old_size,
            "new_bytes": header.new_size, "delta_bytes": made.delta_bytes, "share": share,
            "steps": {kind.name.lower(): count for kind, count in made.written.items()},
        })  # fmt: skip
        return
    remark(f"{header.line}: version {header.old_version} to {header.new_version}, {'' if sign else 'not '}signed")
    remark(f"{size(made.delta_bytes)}, {share:.1%} of the new file ({size(header.new_size)})")
    say(str(out))
