"""The source tree in words: the rooms of the package in the order of their imports, by their docstrings' first lines.

python tests/tree.py              writes the tree into CONTRIBUTING.md
python tests/tree.py compiler     prints the files of a room
"""

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "smallcnn"
PAGE = ROOT / "CONTRIBUTING.md"
BEGIN, END = "<!-- begin: python tests/tree.py -->\n\n", "\n<!-- end -->"
_COLUMN = 28


def rooms() -> list[str]:
    """Packages and modules right below the package, those that import nothing first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [room for layer in reversed(layers) for room in layer.split(" | ")]


def files(room: str) -> Iterator[Path]:
    """The Python files of a room, those of packages inside it after its own."""
    folder = PACKAGE / room
    yield from sorted(folder.rglob("*.py"), key=lambda path: (path.parent, path.name != "__init__.py", path.name))


def first_line(path: Path) -> str:
    """The first sentence of a module's docstring, or its first line."""
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return text.partition("\n")[0].partition(". ")[0].removesuffix(".")


def line(path: Path) -> str:
    """One line of the tree: a module, or a package by its `__init__`."""
    package = path.name == "__init__.py"
    place = path.parent if package else path
    indent = "    " * len(place.relative_to(PACKAGE).parts)
    return f"    {indent + place.name + '/' * package:{_COLUMN}} {first_line(path)}\n"


def tree() -> str:
    """The rooms, and the packages in them."""
    lines = ["    src/smallcnn/\n"]
    for room in rooms():
        if (PACKAGE / room).is_dir():
            lines += [line(path) for path in files(room) if path.name == "__init__.py"]
        elif not room.startswith("_"):
            lines.append(line(PACKAGE / f"{room}.py"))
    return "".join(lines)


def shown() -> str:
    """The tree as CONTRIBUTING.md has it."""
    return PAGE.read_text("utf-8").partition(BEGIN)[2].partition(END)[0]


def main(args: list[str]) -> None:
    if args:
        sys.stdout.writelines(line(path) for room in args for path in files(room))
    else:
        before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
        PAGE.write_text(before + BEGIN + tree() + END + rest.partition(END)[2], "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
