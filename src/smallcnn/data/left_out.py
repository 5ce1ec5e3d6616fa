"""Files and folders that are skipped among images: files by suffix, and folders that programs make for themselves."""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePath

from smallcnn.image.decode import SUFFIXES

_KEPT_BY_PROGRAMS = re.compile(
    r"\..+"  # hidden: .git, .thumbnails, .Trash-1000, .ipynb_checkpoints, .picasaoriginals
    r"|[_@]*(thumbs|thumbnails)|[_@]+(thumb|thumbnail)"  # a class may be called thumb
    r"|@eadir|@tmp|@recycle|@recently-snapshot|@sharebin|#recycle|#snapshot"  # network storage
    r"|\$recycle\.bin|recycler|recycled|system volume information|found\.\d{3}|config\.msi"  # Windows
    r"|__macosx|network trash folder|temporary items|thevolumesettingsfolder|ipod photo cache"  # macOS
    r"|lost\+found|lost\.dir|__pycache__|ipynb_checkpoints|node_modules|cvs|_svn|_vti_cnf|.*\.lrdata",
    re.IGNORECASE,
)

_ANNOTATIONS = (".csv", ".tsv", ".json", ".xml", ".txt", ".yaml", ".yml", ".names", ".labels", ".data")


def is_image_name(name: str) -> bool:
    """Whether a file name is that of an image, by suffix alone: ImageNet has 1.3 million files."""
    _, dot, kind = name.rpartition(".")
    return dot + kind.lower() in SUFFIXES


def is_table_name(name: str) -> bool:
    """Whether a file name is that of a table."""
    return name.lower().endswith((".csv", ".tsv")) and name[0] != "."


def is_annotation_name(name: str) -> bool:
    """Whether a file name is that of a file that may describe images: a table, annotations, or names of classes."""
    return name.lower().endswith(_ANNOTATIONS) and name[0] != "."


def is_skipped(folder: str) -> bool:
    """Whether programs use this folder name for themselves: thumbnails, trash, version control."""
    return _KEPT_BY_PROGRAMS.fullmatch(folder) is not None


def kind_of(name: str) -> str:
    """The kind of a file that is not an image: its suffix in lower case, or a few words."""
    if name[:1] == ".":
        return "hidden"
    suffix = PurePath(name).suffix.lower()
    if not suffix:
        return "without suffix"
    return suffix if re.fullmatch(r"\.\w{1,12}", suffix) else "with an odd suffix"


@dataclass
class LeftOut:
    """Skipped files, as path -> kind (a suffix or a few words), and skipped folders, as path -> name.

    Noting one twice changes nothing. `counts` counts files without a path by kind.
    """

    files: dict[PurePath, str] = field(default_factory=dict)
    folders: dict[PurePath, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def file(self, path: PurePath, kind: str = "") -> None:
        """Notes a file; the default `kind` is its suffix."""
        self.files[path] = kind or kind_of(path.name)

    def folder(self, path: PurePath) -> None:
        """Notes a folder that is not searched."""
        self.folders[path] = path.name

    def inside(self, path: PurePath) -> "LeftOut":
        """The entries below `path`."""
        return LeftOut(
            {file: kind for file, kind in self.files.items() if path in file.parents},
            {folder: name for folder, name in self.folders.items() if path in folder.parents},
        )

    def line(self) -> str:
        """One line for the user; empty if nothing was left out."""
        parts = []
        kinds = self._kinds()
        if total := sum(kinds.values()):
            parts.append(f"left out {_counted(total, 'file')}: {_listed(kinds)}")
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
        return {"files": self._kinds(), "folders": _most_first(Counter(self.folders.values()))}

    def _kinds(self) -> dict[str, int]:
        return _most_first(Counter(self.files.values()) + self.counts)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def _listed(kinds: dict[str, int], most: int = 6) -> str:
    counts = list(kinds.items())
    parts = [f"{count:,} {kind}" for kind, count in counts[:most]]
    if rest := sum(count for _, count in counts[most:]):
        parts.append(f"{rest:,} others")
    return ", ".join(parts)


def _most_first(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
