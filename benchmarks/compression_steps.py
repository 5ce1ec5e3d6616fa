"""One table of the steps of a compression: accuracy, bytes, Mult-Adds, and time measured in float and in int8.

    smallcnn compress FILE --data SOURCE --out OUT --prune 0.5x --int8 --folder STEPS
    python benchmarks/compression_steps.py FILE STEPS/[1-9]*.safetensors --data SOURCE --out FOLDER

Each float file is quantized too (`smallcnn quantize`), and both are compiled for one thread and timed in turns. Results
are kept in FOLDER and not made again. Bytes are those of the packed file; zipped are those of the file that is not
packed, deflated as zip does; times are medians with the least in brackets. Prints a table in Markdown.
"""

import json
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from smallcnn.bench.bench import Candidate, time_candidates
from smallcnn.compiler.compiling import compile_file
from smallcnn.compiler.targets import host
from smallcnn.cost.profile import profile
from smallcnn.evaluate import evaluate
from smallcnn.model.kinds import read
from smallcnn.model.shipped import located
from smallcnn.model.store import content
from smallcnn.quantizing import quantize
from smallcnn.system.cpu import cpu_name


@dataclass(frozen=True)
class Line:
    """A file's figures. Those of the float network are None if the file holds bytes already."""

    name: str
    score: float | None
    int8_score: float
    bytes: int
    zipped_bytes: int
    mult_adds: int


@click.command()
@click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--data", required=True, help="images with labels, as for `smallcnn compress`")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="folder for int8 and compiled files")
@click.option("--seconds", default=8.0, show_default=True, help="seconds of timing for each file")
@click.option("--prepare", is_flag=True, help="quantize and compile, but time nothing")
def main(files: tuple[Path, ...], data: str, out: Path, seconds: float, prepare: bool) -> None:
    """Print the table of FILES, in their order."""
    out.mkdir(parents=True, exist_ok=True)
    lines, candidates = list[Line](), dict[tuple[str, str], Candidate]()
    for number, file in enumerate(files):
        name = f"{number}-{file.stem}"
        line, made = _made(located(file), name, data, out)
        lines.append(line)
        candidates |= {(name, form): Candidate(path, "compiled") for form, path in made.items()}
    if prepare:
        return
    times = time_candidates(list(candidates.values()), threads=1, seconds=seconds)
    ms = {key: f"{row.median_ms:.3f} ({row.min_ms:.3f})" for key, row in zip(candidates, times, strict=True)}
    print("| file | top-1 | int8 | bytes | zipped | Mult-Adds | ms | ms int8 |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for line in lines:
        cells = [
            line.name, "" if line.score is None else f"{line.score:.1%}", f"{line.int8_score:.1%}",
            f"{line.bytes:,}", f"{line.zipped_bytes:,}", f"{line.mult_adds / 1e6:.1f} M",
            ms.get((line.name, "float32"), ""), ms[line.name, "int8"],
        ]  # fmt: skip
        print("|", " | ".join(cells), "|")
    print(f"\none thread, {cpu_name()}; medians in turns, least in brackets")


def _made(file: Path, name: str, data: str, out: Path) -> tuple[Line, dict[str, Path]]:
    """A file's figures, and its compiled forms."""
    model, kept = read(file), out / f"{name}.json"
    forms = {"int8": file} if model.graph.integer else {"float32": file, "int8": out / f"{name}-int8.safetensors"}
    if not kept.is_file():
        score = None
        if model.graph.integer:
            int8_score = evaluate(file, data).scores["top1"]
        else:
            found = quantize(file, data, forms["int8"], anyway=True)
            assert found.before is not None
            assert found.after is not None
            score, int8_score = found.before, found.after
        line = Line(
            name, score, int8_score, len(content(model, packed=True)), len(zlib.compress(content(model))),
            profile(model.graph).mult_adds,
        )  # fmt: skip
        kept.write_text(json.dumps(asdict(line), indent=1))
    compiled = {form: out / f"{name}-{form}{host().suffixes[0]}" for form in forms}
    for form, path in compiled.items():
        if not path.is_file():
            compile_file(forms[form], path, threads=1)
    return Line(**json.loads(kept.read_text())), compiled


if __name__ == "__main__":
    main()
