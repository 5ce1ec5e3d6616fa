"""What lies among images and is not used: files, counted by suffix, and folders that programs make for themselves."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePath

from smallcnn.data.decode import SUFFIXES

_KEPT_BY_PROGRAMS = re.compile(
    r"\..+"  # hidden: .git, .thumbnails, .Trash-1000, .ipynb_checkpoints, .picasaoriginals
    r"|[_@]*(thumbs|thumbnails)|[_@]+(thumb|thumbnail)"  # a class may be called thumb
    r"|@eadir|@tmp|@recycle|@recently-snapshot|@sharebin|#recycle|#snapshot"  # network storage
    r"|\$recycle\.bin|recycler|recycled|system volume information|found\.\d{3}|config\.msi"  # Windows
    r"|__macosx|network trash folder|temporary items|thevolumesettingsfolder|ipod photo cache"  # macOS
    r"|lost\+found|lost\.dir|__pycache__|ipynb_checkpoints|node_modules|cvs|_svn|_vti_cnf|.*\.lrdata",
    re.IGNORECASE,
)


def is_image_name(name: str) -> bool:
    """Whether a file of this name is an image: by its suffix alone, as ImageNet has 1.3 million."""
    _, dot, kind = name.rpartition(".")
    return dot + kind.lower() in SUFFIXES


def is_skipped(folder: str) -> bool:
    """Whether programs give this name to folders of their own: thumbnails, waste baskets, version control."""
    return _KEPT_BY_PROGRAMS.fullmatch(folder) is not None


@dataclass
class LeftOut:
    """Path of each file left out -> its kind (a suffix, or a few words), and of each folder skipped -> its name.

    Noting something twice changes nothing.
    """

    files: dict[PurePath, str] = field(default_factory=dict)
    folders: dict[PurePath, str] = field(default_factory=dict)

    def file(self, path: PurePath, kind: str = "") -> None:
        """Notes a file; without a `kind` it goes by its suffix."""
        if not kind:
            suffix = path.suffix.lower()
            plain = re.fullmatch(r"\.\w{1,12}", suffix)
            kind = "hidden" if path.name[:1] == "." else suffix if plain else "without a usual suffix"
        self.files[path] = kind

    def folder(self, path: PurePath) -> None:
        """Notes a folder that is not looked into."""
        self.folders[path] = path.name

    def inside(self, path: PurePath) -> "LeftOut":
        """What of it lies below `path`."""
        return LeftOut(
            {file: kind for file, kind in self.files.items() if path in file.parents},
            {folder: name for folder, name in self.folders.items() if path in folder.parents},
        )

    def line(self) -> str:
        """One line for the user; empty if nothing was left out."""
        parts = []
        if self.files:
            parts.append(f"left out {_counted(len(self.files), 'file')}: {_kinds(self.files.values())}")
        if self.folders:
            names = sorted(
                {name for name in self.folders.values() if name.isprintable()}, key=lambda n: (n[0] == ".", n)
            )
            some = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
            visible = any(name[0] != "." for name in names)
            parts.append(
                f"skipped {_counted(len(self.folders), 'folder')} that programs make ({some})"
                + (", by name: rename one that is a class" if visible else "")
            )
        return "; ".join(parts)

    def as_dict(self) -> dict[str, dict[str, int]]:
        """Counts by kind of file and by name of folder, for JSON."""
        return {"files": _most_first(self.files.values()), "folders": _most_first(self.folders.values())}


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def _kinds(kinds: Iterable[str], most: int = 6) -> str:
    counts = list(_most_first(kinds).items())
    parts = [f"{count:,} {kind}" for kind, count in counts[:most]]
    if rest := sum(count for _, count in counts[most:]):
        parts.append(f"{rest:,} others")
    return ", ".join(parts)


def _most_first(kinds: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(kinds).items(), key=lambda item: (-item[1], item[0])))
