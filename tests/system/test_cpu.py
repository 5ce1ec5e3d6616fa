"""The cores a process may use, from invented /proc and cgroup trees, and once from the machine."""

import os
import subprocess
import sys

import pytest

from smallcnn.system import cpu

HEAD = "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"


def mount(kind, options, where, shown="/"):
    return f"31 22 0:28 {shown} {where} rw,nosuid shared:9 - {kind} cgroup {options}\n"


def machine(root, groups, mounts, files):
    """A tree with /proc and cgroup file systems as a process sees them."""
    for name, content in {"proc/self/cgroup": groups, "proc/self/mountinfo": HEAD + mounts, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return sorted(cpu.cgroup_quotas(root))


V2 = mount("cgroup2", "rw,nsdelegate", "/sys/fs/cgroup")
V1 = mount("cgroup", "rw,cpuset", "/sys/fs/cgroup/cpuset") + mount(
    "cgroup", "rw,cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct"
)


class TestQuotas:
    def test_version_2_with_all_groups_above(self, tmp_path):
        files = {
            "sys/fs/cgroup/user.slice/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/user.slice/job/cpu.max": "max 100000\n",
            "sys/fs/cgroup/user.slice/job/mine/cpu.max": "400000 50000\n",
            "sys/fs/cgroup/other/cpu.max": "1000 100000\n",
        }
        assert machine(tmp_path, "0::/user.slice/job/mine\n", V2, files) == [1.5, 8]

    def test_version_1(self, tmp_path):
        folder = "sys/fs/cgroup/cpu,cpuacct"
        files = {
            f"{folder}/cpu.cfs_quota_us": "-1\n",
            f"{folder}/cpu.cfs_period_us": "100000\n",
            f"{folder}/batch/cpu.cfs_quota_us": "50000\n",
            f"{folder}/batch/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpuset/batch/cpu.cfs_quota_us": "1\n",
            "sys/fs/cgroup/cpuset/batch/cpu.cfs_period_us": "100000\n",
        }
        assert machine(tmp_path, "5:cpuset:/batch\n4:cpu,cpuacct:/batch\n0::/\n", V1, files) == [0.5]

    def test_both_versions(self, tmp_path):
        """Version 1 has the processor, version 2 only names the processes."""
        folder = "sys/fs/cgroup/cpu,cpuacct"
        files = {f"{folder}/cpu.cfs_quota_us": "300000\n", f"{folder}/cpu.cfs_period_us": "100000\n"}
        mounts = V1 + mount("cgroup2", "rw", "/sys/fs/cgroup/unified")
        assert machine(tmp_path, "4:cpu,cpuacct:/\n1:name=systemd:/\n0::/\n", mounts, files) == [3]

    def test_a_container_that_is_told_its_group_on_the_host(self, tmp_path):
        folder = "sys/fs/cgroup/cpu,cpuacct"
        files = {f"{folder}/cpu.cfs_quota_us": "250000\n", f"{folder}/cpu.cfs_period_us": "100000\n"}
        for shown in ("/docker/0123", "/"):  # the container's own group is mounted, or what it is told is not there
            mounts = mount("cgroup", "rw,cpu", f"/{folder}", shown)
            assert machine(tmp_path, "4:cpu:/docker/0123\n", mounts, files) == [2.5]

    def test_a_process_outside_of_its_namespace(self, tmp_path):
        files = {"sys/fs/cgroup/cpu.max": "200000 100000\n"}
        assert machine(tmp_path, "0::/../../elsewhere\n", V2, files) == [2]

    @pytest.mark.parametrize("content", ["", "max\n", "x 100000\n", "100000 0\n"])
    def test_files_that_say_nothing(self, tmp_path, content):
        assert machine(tmp_path, "0::/\n", V2, {"sys/fs/cgroup/cpu.max": content}) == []

    def test_no_cgroups(self, tmp_path):
        assert list(cpu.cgroup_quotas(tmp_path)) == []


@pytest.fixture
def of(monkeypatch):
    """A machine with so many cores, an affinity and quotas."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)

    def set_up(cores, affinity, *quotas):
        monkeypatch.setattr(os, "cpu_count", lambda: cores)
        if affinity is None:
            monkeypatch.delattr(os, "sched_getaffinity", raising=False)
        else:
            monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(affinity)), raising=False)
        monkeypatch.setattr(cpu, "cgroup_quotas", lambda: iter(quotas))

    return set_up


@pytest.mark.parametrize(
    ("machine", "usable"),
    [
        ((8, 8), 8),
        ((8, 3), 3),
        ((8, 8, 1.5), 2),
        ((8, 8, 0.5), 1),
        ((8, 8, 4.0, 2.0), 2),
        ((8, 1, 4.0), 1),
        ((2, 2, 64.0), 2),
        ((8, None), 8),  # macOS and Windows
        ((None, None), 1),  # unknown
    ],
    ids=str,
)
def test_usable_cores(of, machine, usable):
    of(*machine)
    assert cpu.usable_cores() == usable


def test_processes_of_torchrun_share(of, monkeypatch):
    decoding_threads = pytest.importorskip("smallcnn.train.distributed").decoding_threads
    of(8, 8, 6.0)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert (cpu.cores_per_process(), cpu.core_limit(), decoding_threads()) == (3, 3, 3)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert (cpu.cores_per_process(), decoding_threads()) == (1, 1)


def test_libraries_choose_themselves_on_a_whole_machine(of, monkeypatch):
    of(8, 8)
    assert (cpu.core_limit(), cpu.openmp_threads(4)) == (None, 4)  # four cores with two hyperthreads
    of(8, 8, 2.0)
    assert (cpu.core_limit(), cpu.openmp_threads(4), cpu.openmp_threads(1)) == (2, 2, 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert cpu.openmp_threads(4) == 4


ON_ONE_CORE = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import torch
from smallcnn.system.cpu import cpu_name, usable_cores
torch.set_num_threads(2)
from smallcnn.train.run import set_threads
set_threads(None)
print(usable_cores(), torch.get_num_threads(), end=" ")
set_threads(3)
print(torch.get_num_threads(), cpu_name().endswith(f" {os.cpu_count()} cores"))
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
@pytest.mark.skipif(os.cpu_count() == 1, reason="needs a core to be kept from")
def test_a_process_kept_to_one_core():
    pytest.importorskip("torch")
    environment = {
        name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "LOCAL_WORLD_SIZE")
    }
    said = subprocess.run(
        [sys.executable, "-c", ON_ONE_CORE], env=environment, capture_output=True, text=True, check=True, timeout=100
    )
    assert said.stdout.split() == ["1", "1", "3", "True"]


@pytest.mark.parametrize(
    ("flags", "exact"),
    [({"avx2"}, False), ({"avx512f"}, False), ({"avx_vnni"}, True), ({"avx512_vnni"}, True), ((), False)],
)
def test_which_processors_sum_bytes_exactly(flags, exact, monkeypatch):
    monkeypatch.setattr(cpu, "cpu_flags", lambda: frozenset(flags))
    assert cpu.sums_bytes_exactly() is exact


@pytest.mark.skipif(sys.platform != "linux", reason="names as Linux tells them")
@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("model name\t: AMD EPYC\ncpu family\t: 25\nmodel\t\t: 17\n", "AMD EPYC (family 25, model 17)"),
        ("cpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD EPYC\n\nmodel\t: 2\n", "AMD EPYC (family 25, model 1)"),
        ("model name\t: AMD EPYC 7763 64-Core\ncpu family\t: 25\nmodel\t\t: 1\n", "AMD EPYC 7763 64-Core"),
        ("model name\t: ARMv8 Processor\n", "ARMv8 Processor"),
    ],
)
def test_a_name_that_could_be_several_processors_has_their_numbers(told, name, tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(told)
    assert cpu.cpu_name(tmp_path) == f"{name}, {os.cpu_count()} cores"


@pytest.mark.parametrize(
    ("told", "flags"),
    [
        ("model name\t: Intel\nflags\t\t: fpu avx2\n\nflags\t\t: fpu\n", {"fpu", "avx2"}),
        ("processor\t: 0\nFeatures\t: fp asimd\n", {"fp", "asimd"}),  # ARM
        ("processor\t: 0\n", set()),
        (None, set()),
    ],
)
def test_flags_in_the_words_of_linux(told, flags, tmp_path):
    if told is not None:
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/cpuinfo").write_text(told)
    assert cpu.cpu_flags(tmp_path) == flags
