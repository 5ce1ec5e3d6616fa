"""`smallcnn cost`."""

from pathlib import Path

import click

from smallcnn import zoo
from smallcnn.cli.options import as_json, common, completed, given, models
from smallcnn.cli.show import millions, print_json, size, table
from smallcnn.ir.graph import Graph
from smallcnn.ir.predictors import object_classes
from smallcnn.ir.types import LOGITS


@click.command("cost")
@click.argument("model", shell_complete=completed(models))
@common
@click.option("--by", type=click.Choice(["layer", "type"]), default="type", show_default=True, help="rows of the table")
@as_json
def command(model: str, by: str, json_: bool, **chosen: int | None) -> None:
    """Count the Mult-Adds, parameters, weight bytes and peak activations of MODEL, or of the network in a model file.

    One multiply and one add count as one Mult-Add; only convolutions and dense layers are counted.
    """
    from smallcnn.compiler.explain import peak_activation_bytes
    from smallcnn.cost.profile import profile
    from smallcnn.model import store
    from smallcnn.model.kinds import KINDS, read

    if Path(model).suffix.lower() in KINDS or Path(model).is_dir():
        if given(chosen):
            raise click.UsageError(
                f"{model} has its own input and classes; these options only apply to the name of a MODEL"
            )
        graph = read(model).graph
        packed = store.parts(model) if Path(model).suffix.lower() == ".safetensors" else {}
        name, options = graph.name, {}
    else:
        parsed = zoo.parse(model)
        graph, name, options, packed = parsed.build(**given(chosen)), parsed.name, parsed.options, {}
    counted = profile(graph)
    fused = peak_activation_bytes(graph)
    totals = {
        "model": name,
        "options": options,
        "input_size": list(counted.input_shape),
        "mult_adds": counted.mult_adds,
        "parameters": counted.parameters,
        "peak_activation_elements": counted.peak_activation_elements,
        "peak_activation_bytes": counted.peak_activation_bytes,
        "peak_activation_bytes_fused": fused,
        "weight_bytes": counted.weight_bytes,
        "weight_bytes_by_number": counted.weight_bytes_by_number,
    }
    if packed:
        totals["packed_bytes"] = packed
    if json_:
        print_json(totals | {"layers": [
            {
                "name": layer.name, "type": layer.type, "input_shapes": [list(shape) for shape in layer.input_shapes],
                "output_shape": list(layer.output_shape), "mult_adds": layer.mult_adds, "parameters": layer.parameters,
            }
            for layer in counted.layers
        ]})  # fmt: skip
        return
    if by == "layer":
        rows = [
            [row.name, row.type, "x".join(map(str, row.output_shape)), f"{row.mult_adds:,}", f"{row.parameters:,}"]
            for row in counted.layers
            if row.mult_adds or row.parameters or "pool" in row.type or "quantize" in row.type
        ]
        table(["layer", "type", "output", "Mult-Adds", "parameters"], rows)
    else:
        table(
            ["type", "layers", "Mult-Adds", "%", "parameters", "%"],
            [
                [
                    total.type, str(total.layers), f"{total.mult_adds:,}", f"{total.mult_adds / counted.mult_adds:.2%}",
                    f"{total.parameters:,}", f"{total.parameters / counted.parameters:.2%}",
                ]
                for total in counted.by_type()
                if total.mult_adds or total.parameters or "quantize" in total.type
            ],
        )  # fmt: skip
    click.echo(f"{counted.name} at {'x'.join(map(str, counted.input_shape))}, {_results(graph)}")
    click.echo(f"  Mult-Adds         {counted.mult_adds:>15,}  ({millions(counted.mult_adds)})")
    click.echo(f"  parameters        {counted.parameters:>15,}  ({millions(counted.parameters)})")
    for number, count in counted.weight_bytes_by_number.items():
        click.echo(f"  {f'weights, {number}':<16}  {count:>15,}  bytes ({size(count)}), batch norm folded")
    for part, count in packed.items():
        click.echo(f"  {f'packed, {part}':<16}  {count:>15,}  bytes ({size(count)}) of the file")
    elements, stored = counted.peak_activation_elements, size(counted.peak_activation_bytes)
    numbers = {node.tensor.number for node in graph}
    kinds = "float32" if numbers == {"float32"} else "their number types"
    click.echo(f"  peak activations  {elements:>15,}  elements ({stored} in {kinds}), layer by layer")
    click.echo(f"  compiled, fused   {fused:>15,}  bytes ({size(fused)}) with scratch, one thread, vectors of 8")


def _results(graph: Graph) -> str:
    """The outputs in words: classes, or each output's name, shape and number type."""
    if classes := object_classes(graph):
        return f"{classes} classes of objects"
    if [output.name for output in graph.outputs] == [LOGITS] and len(graph.output_shape) == 1:
        return f"{graph.output_shape[0]} classes"
    return ", ".join(
        f"{name} {'x'.join(map(str, tensor.shape))} {tensor.number}" for name, tensor in graph.results.items()
    )
