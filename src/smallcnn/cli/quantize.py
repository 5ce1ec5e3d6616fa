"""`smallcnn quantize`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smallcnn.cli import options
from smallcnn.cli.show import print_json, progress, remark, say, size, table, warn_untrained

if TYPE_CHECKING:
    from smallcnn.quantizing import Quantized

_WORST = 5
"""Layers that are listed, those that add the most noise."""


@click.command("quantize")
@options.file
@options.data("images to calibrate and to judge on, best labelled")
@options.root
@click.option("--out", required=True, type=click.Path(path_type=Path), help="model file to write (.safetensors)")
@click.option(
    "--max-drop", type=click.FloatRange(0), default=1.0, show_default=True, metavar="POINTS",
    help="largest accepted drop of the score, in per cent points",
)  # fmt: skip
@click.option(
    "--images", type=click.IntRange(1), default=128, show_default=True, metavar="N", help="number of calibration images"
)
@click.option("--mixed", is_flag=True, help="keep the worst layers in float until the score is good enough")
@click.option("--keep-float", multiple=True, metavar="LAYER", help="layer to keep in float; may be given several times")
@click.option("--per-tensor", is_flag=True, help="one scale for all weights of a layer, as old engines need")
@click.option("--packed", is_flag=True, help="write a packed file: fewer bytes, loaded to the same numbers")
@click.option("--anyway", is_flag=True, help="write the file even if the score drops by more")
@options.threads
@options.workers
@options.as_json
def command(
    file: Path,
    data: str,
    root: Path | None,
    out: Path,
    max_drop: float,
    images: int,
    mixed: bool,
    keep_float: tuple[str, ...],
    per_tensor: bool,
    packed: bool,
    anyway: bool,
    threads: int | None,
    workers: int | None,
    json_: bool,
) -> None:
    """Turn FILE into an int8 network: bytes instead of floats, about four times smaller, and faster.

    Some images of SOURCE calibrate the ranges of the bytes; the float and the int8 network are compared on others. The
    file is written only if the score drops by at most --max-drop points: top-1, the mean average precision of
    attributes, or a detector's AP. Without labels that fit the network, at least 90 % of the answers must be the same.
    """
    from smallcnn.model.kinds import read
    from smallcnn.model.shipped import located
    from smallcnn.quantizing import quantize
    from smallcnn.transform.quantize import Settings

    file = located(file)
    model = read(file)
    warn_untrained(model.facts)
    with progress("decoding") as report:
        found = quantize(
            model, data, out, root=root, images=images, max_drop=max_drop, mixed=mixed, anyway=anyway,
            packed=packed, threads=threads,
            settings=Settings(per_tensor=per_tensor, keep_float=keep_float), workers=workers, progress=report,
        )  # fmt: skip
    if found.doubt:
        remark(f"note: only the agreement is judged: {found.doubt}")
    before, after = file.stat().st_size, out.stat().st_size
    if json_:
        score = found.score or "top1"
        print_json({
            "file": str(out), "data": data, "split": found.part, "images": found.judged,
            "calibration_images": found.report.images, f"{score}_before": found.before, f"{score}_after": found.after,
            "agreement": found.agreement, "bytes_before": before, "bytes_after": after,
            "kept_float": found.kept_float, "equalised": found.report.equalised, "layers": layers(found),
        })  # fmt: skip
        return
    _print(found)
    remark(f"{size(before)} before, {size(after)} after ({after / before:.0%})")
    say(str(out))


def layers(found: "Quantized") -> list[dict[str, Any]]:
    """The report of each layer for JSON."""
    return [asdict(layer) for layer in found.report.layers]


def _print(found: "Quantized") -> None:
    from smallcnn.system.words import several
    from smallcnn.tasks.metrics import title
    from smallcnn.transform.quantize import worst

    by_layer = {layer.layer: layer for layer in found.report.layers}
    rows = [
        [name, f"{one.weights_snr:.1f}", f"{one.bytes_snr:.1f}", f"{one.snr:.1f}", f"{one.saturated:.3%}",
         f"{one.low:.3g} to {one.high:.3g}"]
        for name in worst(found.report.layers)[:_WORST] for one in [by_layer[name]]
    ]  # fmt: skip
    say("signal to noise in dB, worst layers:")
    table(["layer", "weights", "bytes", "with all before", "saturated", "range"], rows)
    if found.kept_float:
        say(f"in float: {', '.join(found.kept_float)}")
    if found.before is not None and found.after is not None:
        scores = f"{title(found.score or '')} {found.before:.2%} before, {found.after:.2%} after"
        say(f"{scores}, on {found.judged} images ({found.part})")
    say(f"agreement with the float network {found.agreement:.2%} on {several(found.judged, 'image')}")
