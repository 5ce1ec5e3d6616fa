"""`smallcnn keygen`."""

from pathlib import Path

import click

from smallcnn.cli import options
from smallcnn.cli.show import print_json, remark, say


@click.command("keygen")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="name of the files, without an ending")
@options.as_json
def command(out: Path, json_: bool) -> None:
    """Make a key to sign updates with: OUT.key, to be kept secret, and OUT.pub, for the devices.

    Whoever has OUT.key can update every device that trusts OUT.pub. Keep a copy: a lost key cannot be made again.
    """
    from smallcnn.delta.keys import make_keys

    private, public, raw = make_keys(out)
    if json_:
        print_json({"private_key": str(private), "public_key": str(public), "public_key_hex": raw.hex()})
        return
    remark(f"sign with {private}; trust {public}, for apps {raw.hex()}")
    say(str(public))
