"""Attributes from a table next to the images: one row per image, one column per question.

    file,colour,smiling      colour: one of the values in the column; its labels are "colour: blue" and "colour: red"
    1.jpg,red,yes            smiling: yes or no (also true/false, 1/0, 1/-1); its label is "smiling"
    2.jpg,blue,              an empty cell, or NaN, is unknown

The first column names the file, by its path below the set or as much of its end as is unique. Every image needs a row
and every row an image. Images lie in any folders, or under train/, val/ and test/, each of which may have a table.
"""

from collections import Counter

from smallcnn.data import targets
from smallcnn.data.archive import File
from smallcnn.data.left_out import is_image_name, is_table_name
from smallcnn.data.listing import Listing
from smallcnn.data.questions import Columns, answers
from smallcnn.data.split import Split
from smallcnn.data.table import Names, Table, read_table
from smallcnn.data.tree import DEEPEST, SPLITS, Folder, around, by_split, check_strays
from smallcnn.errors import DataError
from smallcnn.tasks.labels import some


def read(given: Folder, columns: Columns = None, table: str | None = None) -> Listing | None:
    """Reads the images of a folder, or of the only folder in it, with the table there; None if there is none.

    Class folders come before a table, unless `table`, its file name, is given. Raises DataError if images and rows do
    not fit each other, or one of the `columns` cannot be used.
    """
    root = _with_table(given)
    if root is None:
        return None
    folders, others = by_split(root)
    if not folders or (others and not any(folder.folders() for folder in folders.values())):
        folders, others = {"train": root}, []  # a folder of images may be called "train"
    folders = {key: folders[key] for key in dict.fromkeys(SPLITS.values()) if key in folders}  # train's columns first
    if table is None and any(len(folder.folders()) > 1 for folder in folders.values()):
        return None
    own = _tables(root, table)
    theirs = {} if own else {key: _tables(folder) for key, folder in folders.items()}
    if not own and not any(theirs.values()):
        return None
    check_strays(folders, others)
    for path in [path for folder in (given, root) if folder not in folders.values() for path in folder.loose()]:
        root.left_out.file(path, "outside the splits" if is_image_name(path.name) else "")
    images = {key: _images(root, folder) for key, folder in folders.items()}
    every = [name for found in images.values() for name in found]
    tables = [(root, own, every)] if own else [(folders[key], theirs[key], list(images[key])) for key in folders]
    cells = [_cells(*one) for one in tables]
    answered = {title: list[str]() for one in cells for title in one}
    for (*_, names), one in zip(tables, cells, strict=True):
        for title in answered:
            answered[title] += one.get(title, [""] * len(names))
    task, present, notes = answers(tables[0][1][0].path, answered, columns)
    splits, start = {}, 0
    for key, found in images.items():
        labels = present[start : start + len(found)]
        splits[key] = Split(list(found.values()), targets.Attributes(labels), list(found))
        start += len(found)
    return Listing(task, splits, root.left_out, (*around(given, root), *notes))


def _with_table(given: Folder) -> Folder | None:
    """`given`, or the only folder below it that has a table, or has tables in its splits."""
    here = given
    for _ in range(DEEPEST):
        folders, loose = here.folders(), here.loose()
        splits = [folder for folder in folders if folder.path.name.lower() in SPLITS]
        if any(is_table_name(path.name) for folder in (here, *splits) for path in folder.loose()):
            return here
        if len(folders) != 1 or any(is_image_name(path.name) for path in loose):
            return None
        here = folders[0]
    return None


def _tables(folder: Folder, named: str | None = None) -> list[Table]:
    """The tables in a folder whose first column mostly names images; of those the one of a name, if given."""
    found = []
    for path in sorted(folder.loose()):
        if is_table_name(path.name) and named in (None, path.name):
            table = read_table(folder.file(path.name), path)
            if named or 2 * sum(is_image_name(row[0]) for _, row in table.rows) > len(table.rows):
                found.append(table)
    return found


def _images(root: Folder, folder: Folder) -> dict[str, File]:
    """Name below `root` -> image. Raises DataError if there are none."""
    below = "" if folder.path == root.path else f"{folder.path.name}/"
    found = {f"{below}{name}": image for name, image in folder.images().items()}
    if not found:
        raise DataError(f"{folder.path}: no images")
    return found


def _cells(folder: Folder, tables: list[Table], names: list[str]) -> dict[str, list[str]]:
    """The cells of these images by title. Raises DataError unless there is one table with one row for each image."""
    if len(tables) != 1:
        found = f"{len(tables)} tables that name images ({some([table.path.name for table in tables])})"
        raise DataError(f"{folder.path}: {found if tables else 'no table that names the images'}; one is needed")
    (table,) = tables
    folder.left_out.files.pop(table.path, None)
    path = table.path
    if not any(table.titles):
        raise DataError(f"{path}: its first row must have the titles of the columns; it is empty")
    if twice := [title for title, count in Counter(filter(None, table.titles)).items() if count > 1]:
        raise DataError(f"{path}: several columns are called {some(twice)}")
    if uneven := [(number, row) for number, row in table.rows if len(row) > len(table.titles)]:
        number, row = uneven[0]
        raise DataError(f"{path}: row {number} has {len(row)} cells, for {len(table.titles)} titles")
    images, rows_of, strangers = Names(names), dict[str, list[tuple[int, list[str]]]](), []
    for number, row in table.rows:
        meant = images.find(row[0])
        if len(meant) > 1:
            raise DataError(f"{path}: row {number}: {row[0]!r} names {len(meant)} images ({some(meant, 2)})")
        if meant:
            rows_of.setdefault(meant[0], []).append((number, row))
        else:
            strangers.append((number, row[0]))
    problems = []
    if repeated := [(name, rows) for name, rows in rows_of.items() if len(rows) > 1]:
        name, rows = repeated[0]
        problems.append(f"images with several rows: {len(repeated):,} (rows {rows[0][0]} and {rows[1][0]}: {name!r})")
    if strangers:
        number, file = strangers[0]
        problems.append(f"rows without an image: {len(strangers):,} of {len(table.rows):,} (row {number}: {file!r})")
    if unlisted := [name for name in names if name not in rows_of]:
        problems.append(f"images without a row: {len(unlisted):,} of {len(names):,} ({unlisted[0]!r})")
    if problems:
        raise DataError(f"{path}: {'; '.join(problems)}")
    cells = [rows_of[name][0][1] for name in names]
    return {
        title: [row[place] if place < len(row) else "" for row in cells]
        for place, title in enumerate(table.titles[1:], 1)
    }
