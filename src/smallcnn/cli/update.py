"""`smallcnn update`."""

from pathlib import Path

import click

from smallcnn.cli import options
from smallcnn.cli.show import print_json, remark, say


@click.command("update")
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("delta", type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="file to write; may be OLD, which is then replaced"
)
@click.option(
    "--trust", type=click.Path(path_type=Path), metavar="PUBLIC_KEY", help="public key that must have signed the update"
)
@click.option("--line", metavar="NAME", help="model line to accept  [default: any]")
@click.option("--allow-rollback", is_flag=True, help="accept an update to a lower version")
@options.as_json
def command(
    old: Path, delta: Path, out: Path, trust: Path | None, line: str | None, allow_rollback: bool, json_: bool
) -> None:
    """Apply the update DELTA, from `smallcnn delta`, to the file OLD.

    Signature, version and OLD are checked before, the new file after; whatever fails, and whenever the power does, OLD
    or the new file is there, whole. Repeating an update does no harm.
    """
    from smallcnn.delta.updating import update

    done = update(old, delta, out, trust=trust, line=line, allow_rollback=allow_rollback)
    header = done.header
    if header.signed and not trust:
        remark(f"note: signed with the key {header.signer.hex()[:16]}..., which nobody vouches for: give --trust")
    if json_:
        print_json({
            "file": str(out), "line": header.line, "from_version": header.old_version,
            "to_version": header.new_version, "signer": header.signer.hex() if header.signed else None,
            "trusted": trust is not None, "already": done.already, "file_bytes": header.new_size,
            "sha256": header.new_hash.hex(),
        })  # fmt: skip
        return
    was = "already was" if done.already else "now is"
    remark(f"{header.line}: {was} version {header.new_version}")
    say(str(out))
