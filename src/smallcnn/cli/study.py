"""`smallcnn study`."""

from pathlib import Path
from typing import Any

import click

from smallcnn.cli.options import as_json, completed, compute, device, root, threads, workers
from smallcnn.cli.show import print_json, remark, table
from smallcnn.errors import TRAIN, SmallcnnError, require


def _names() -> list[str]:
    from smallcnn.study.catalogue import STUDIES

    return list(STUDIES)


@click.command("study")
@click.argument("name", required=False, shell_complete=completed(_names))
@click.option("--data", metavar="SOURCE", help="images with a test split: a named set, .npz or folder")
@root
@click.option(
    "--teacher", type=click.Path(path_type=Path), help="model file to use as the teacher, in rows that have one"
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="folder of the study; each run has a sub-folder ROW/seed-S"
)
@click.option(
    "--seeds",
    type=click.IntRange(1),
    help="number of runs of each row, with seeds 0, 1, ...  [default: the study's own]",
)
@click.option("--epochs", type=click.IntRange(1), help="epochs of each run  [default: the study's own]")
@click.option("--row", "rows", multiple=True, help="row to run, in place of all; may be repeated")
@click.option("--table", "table_only", is_flag=True, help="show the results in --out and train nothing")
@click.option("--markdown", is_flag=True, help="print the table as Markdown")
@compute
@device
@threads
@workers
@as_json
def command(
    name: str | None,
    data: str | None,
    root: Path | None,
    teacher: Path | None,
    out: Path | None,
    seeds: int | None,
    epochs: int | None,
    rows: tuple[str, ...],
    table_only: bool,
    markdown: bool,
    compute: Any,
    device: str,
    threads: int | None,
    workers: int | None,
    json_: bool,
) -> None:
    """Repeat a paper's comparison: the study NAME on SOURCE. Without NAME, list the studies.

    Every row (a network) is trained with several seeds, one run at a time. Finished runs in --out are kept, an
    interrupted run resumes, and several processes with the same --out share the runs. The table is printed;
    results.json, plot.svg and report.html are written to --out. Without --out, the rows, their cost and the paper's
    figures are shown.
    """
    from smallcnn.report import study as page
    from smallcnn.study import catalogue, results

    to_train = data or root or teacher or seeds or epochs or rows
    if name is None:
        if to_train or out:
            raise SmallcnnError("no study NAME given; `smallcnn study` lists them")
        _list(json_)
        return
    study = catalogue.find(name)
    if out is None:
        if to_train or table_only:
            raise SmallcnnError("a study needs --out DIR")
        lines = tuple(results.Line(row, ()) for row in study.rows)
    elif table_only:
        if to_train:
            raise SmallcnnError("--table shows the results and trains nothing; it takes no training options")
        if not out.is_dir():
            raise SmallcnnError(f"{out}: no such folder")
        lines = results.read(study, out)
    else:
        if data is None:
            raise SmallcnnError("a study needs --data SOURCE; --table shows the results so far without it")
        require("running a study", "train", *TRAIN)
        from smallcnn.model.shipped import located
        from smallcnn.study import running

        running.run(
            study, data, out, root=root, teacher=teacher and located(teacher), seeds=seeds, epochs=epochs, rows=rows,
            compute=compute, device=device, threads=threads, workers=workers, say=remark,
            finished=lambda lines: page.write(study, lines, out),
        )  # fmt: skip
        lines = results.read(study, out)
    if json_:
        print_json(results.as_json(study, lines))
    elif markdown:
        click.echo(page.markdown(study, lines))
    else:
        click.echo(f"{study.title}. {study.question}\n{study.source}.")
        table(*page.table(study, lines))
        if out and (out / page.PAGE).is_file():
            remark(f"report: {out / page.PAGE}")


def _list(json_: bool) -> None:
    from smallcnn.study.catalogue import STUDIES

    if json_:
        print_json([
            {"study": study.name, "title": study.title, "question": study.question, "networks": len(study.rows),
             "rows": [row.name for row in study.rows], "seeds": study.seeds, "epochs": study.recipe.epochs,
             "hours": study.hours()}
            for study in STUDIES.values()
        ])  # fmt: skip
        return
    table(["study", "networks", "seeds", "epochs", "core hours", "question"], [
        [study.name, str(len(study.rows)), str(study.seeds), str(study.recipe.epochs), f"{study.hours():.0f}",
         study.question]
        for study in STUDIES.values()
    ])  # fmt: skip
