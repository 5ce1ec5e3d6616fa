"""What is known of the processor, and the number of its cores that this process may use."""

import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def cpu_name(root: Path = Path("/")) -> str:
    """The processor's name from its vendor, with the number of the machine's cores. Caches are named after it.

    A virtual machine may be told no more than "AMD EPYC"; the processor's numbers follow such a name. `root` contains
    /proc.
    """
    name = platform.processor() or platform.machine()
    board = root / "proc/device-tree/model"
    if sys.platform == "darwin":
        asked = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False
        )
        name = asked.stdout.strip() or name
    elif about := cpu_facts(root):
        name = about.get("model name") or (board.read_text().strip("\0\n") if board.exists() else name)
        if {"cpu family", "model"} <= about.keys() and not any(letter.isdigit() for letter in name):
            name += f" (family {about['cpu family']}, model {about['model']})"
    return f"{name}, {os.cpu_count()} cores"


def cpu_flags(root: Path = Path("/")) -> frozenset[str]:
    """What Linux says that the processor and the system support, in its words; empty elsewhere. `root` has /proc."""
    facts = cpu_facts(root)
    return frozenset((facts.get("flags") or facts.get("Features") or "").split())


def cpu_facts(root: Path = Path("/")) -> dict[str, str]:
    """The entries of /proc/cpuinfo for the first processor, by name; empty where there is no such file.

    `root` contains /proc.
    """
    cpuinfo = root / "proc/cpuinfo"
    block = cpuinfo.read_text().partition("\n\n")[0] if cpuinfo.exists() else ""
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in block.splitlines())}


def sums_bytes_exactly() -> bool:
    """Whether the processor is known to add products of bytes in 32 bits (VNNI), where others saturate at 16."""
    return not cpu_flags().isdisjoint({"avx512_vnni", "avx_vnni"})


def usable_cores() -> int:
    """Number of cores this process may keep busy, at least 1: its affinity, and on Linux the quota of its cgroups.

    A quota of 1.5 cores gives 2. More threads than that wait for each other.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *map(math.ceil, cgroup_quotas())]))


def cores_per_process() -> int:
    """The share of `usable_cores` of one of the processes that torchrun started on this machine, at least 1."""
    return max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def core_limit() -> int | None:
    """`cores_per_process` if the machine has more cores; None if this process may use all.

    For libraries that would start a thread per core of the machine: those know best which cores are hyperthreads.
    """
    share = cores_per_process()
    return share if share < (os.cpu_count() or 1) else None


def openmp_threads(default: int) -> int:
    """`default` threads, or fewer if cores are limited, for an OpenMP library, which ignores quotas.

    OMP_NUM_THREADS has the last word.
    """
    limit = core_limit()
    return default if limit is None or os.environ.get("OMP_NUM_THREADS") else min(default, limit)


def cgroup_quotas(root: Path = Path("/")) -> Iterator[float]:
    """Processor time that cgroups grant this process, in cores: those of its own groups and of the groups above.

    `root` contains /proc and the mounted file systems. Version 2 states a quota in cpu.max, version 1 in
    cpu.cfs_quota_us (https://docs.kernel.org/admin-guide/cgroup-v2.html, .../scheduler/sched-bwc.html).
    """
    groups = _groups(root)
    for kind, controllers, shown, mounted in _mounts(root):
        version = 2 if kind == "cgroup2" else 1
        name = "" if version == 2 else "cpu"
        if name in groups and (version == 2 or "cpu" in controllers):
            for folder in _folders(groups[name], shown, mounted):
                quota = _quota(root / folder.relative_to("/"), version)
                if quota is not None:
                    yield quota


def _groups(root: Path) -> dict[str, PurePosixPath]:
    """This process's group in each version 1 hierarchy, by controller, and in version 2's, by the empty name."""
    groups = {}
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        groups.update(dict.fromkeys(controllers.split(","), PurePosixPath(path)))
    return groups


def _mounts(root: Path) -> Iterator[tuple[str, list[str], PurePosixPath, PurePosixPath]]:
    """Mounted cgroup hierarchies: the kind of file system, its options, the group it shows as its root, and where.

    See proc_pid_mountinfo(5); its octal escapes do not occur in the names of these.
    """
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        shown, mounted = before.split(" ")[3:5]
        kind, _, options = after.split(" ")[:3]
        if kind in ("cgroup", "cgroup2"):
            yield kind, options.split(","), PurePosixPath(shown), PurePosixPath(mounted)


def _folders(group: PurePosixPath, shown: PurePosixPath, mounted: PurePosixPath) -> list[PurePosixPath]:
    """Folders of a group and of those above it, as far as the mount shows them.

    A container may be told its group's path on the host although its own group is the root of the mount.
    """
    below = group.relative_to(shown) if group.is_relative_to(shown) else PurePosixPath()
    if ".." in below.parts:  # outside of the cgroup namespace
        below = PurePosixPath()
    return [mounted / part for part in (below, *below.parents)]


def _quota(folder: Path, version: int) -> float | None:
    """The quota of one group in cores; None if it has none."""
    try:
        if version == 2:
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{key}_us").read_text().strip() for key in ("quota", "period"))
        return None if quota == "max" or int(quota) <= 0 else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
