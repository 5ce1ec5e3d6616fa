import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import records
from records import Records
from smallcnn.errors import WriteError

# names as processors give them, entries of /proc/cpuinfo, what people call them
PROCESSORS = [
    ("Intel(R) Xeon(R) Processor", ("GenuineIntel", 6, 207), "Intel Xeon (Emerald Rapids)"),
    ("Intel(R) Core(TM) i5-7200U CPU @ 2.50GHz", ("GenuineIntel", 6, 142), "Intel Core i5-7200U (Skylake)"),
    ("AMD EPYC (family 25, model 17)", ("AuthenticAMD", 25, 17), "AMD EPYC (Zen 4)"),
    ("AMD EPYC 7B13 64-Core Processor", ("AuthenticAMD", 25, 1), "AMD EPYC 7B13 (Zen 3)"),
    ("AMD Ryzen 9 7950X 16-Core Processor", ("AuthenticAMD", 25, 97), "AMD Ryzen 9 7950X (Zen 4)"),
    ("AMD EPYC 9B45", ("AuthenticAMD", 26, 2), "AMD EPYC 9B45 (Zen 5)"),
    ("Intel(R) Core(TM) 99", ("GenuineIntel", 6, 9999), "Intel Core 99"),
    (
        "Intel(R) Xeon(R) Processor",
        ("GenuineIntel", 6, 167, "amx_int8 amx_tile"),
        "Intel Xeon (Sapphire or Emerald Rapids)",
    ),
    ("Intel(R) Xeon(R) Processor", ("GenuineIntel", 6, 167, "amx_fp16 amx_tile"), "Intel Xeon"),
    ("Raspberry Pi 5 Model B Rev 1.0", (), "Raspberry Pi 5 Model B Rev 1.0"),
]


@pytest.mark.parametrize(("name", "entries", "short"), PROCESSORS)
def test_names_of_processors(name, entries, short):
    about = dict(zip(("vendor_id", "cpu family", "model", "flags"), map(str, entries), strict=False))
    assert records.processor(name, about) == short


def asked(*words):
    """What a program prints; nproc listens to OpenMP's variables, too."""
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    return subprocess.run(words, capture_output=True, text=True, check=True, env=quiet, timeout=60).stdout.strip()


def test_the_machine_is_what_the_system_says():
    found = records.machine()
    assert json.loads(json.dumps(found)) == found
    assert found["versions"]["numpy"] == version("numpy")
    assert found["python"] == sys.version.split()[0]
    if sys.platform == "linux":
        assert found["cores"] == int(asked("nproc"))
        flags = Path("/proc/cpuinfo").read_text().split()
        for flag in ("avx2", "avx512_vnni", "asimddp", "fma"):
            assert (flag in found["flags"]) == (flag in flags)
        told = (line.split() for line in asked("lscpu", "--bytes", "--caches=NAME,ONE-SIZE").splitlines()[1:])
        assert found["caches"] == {name: int(size) for name, size in told if name != "L1i"}  # getconf adds up an EPYC's


def test_shares_of_the_processor_time():
    before = "cpu  1000 10 200 5000 40 0 5 7 0 0\ncpu0 ...\n"
    after = "cpu  1300 20 250 5500 60 10 15 107 0 0\ncpu0 ...\n"
    # busy 300 + 10 + 50 + 10 + 10 = 380, of these 250 ours; idle 500, waiting 20, stolen 100: 1000 in all
    assert records.shares(before, after, 2.5) == {"others": 0.13, "stolen": 0.1}
    assert records.shares(before, after, 9.0)["others"] == 0  # a child that ran before, waited for during the block
    assert records.shares("", "", 1.0) == {}


def test_the_load_is_complete_at_the_end_of_the_block():
    with records.load() as seen:
        assert set(seen) == {"average_before"}
    assert seen["average_after"] is None or seen["average_after"] >= 0
    if sys.platform == "linux":
        assert 0 <= seen["others"] <= 1
        assert 0 <= seen["stolen"] <= 1


@pytest.fixture
def kept(tmp_path):
    return Records("engines", keys=("model", "threads"), path=tmp_path / "records" / "engines-x.json")


def test_a_row_is_added_or_replaced(kept):
    kept.put({"model": "a", "threads": 1, "ms": 1.0})
    kept.put({"model": "a", "threads": 2, "ms": 2.0})
    kept.put({"model": "a", "threads": 1, "ms": 1 / 3, "engines": {"x": [2 / 3]}})
    assert [(row["threads"], row["ms"]) for row in kept.rows] == [(1, 0.333333), (2, 2.0)]
    assert kept.find(model="a", threads=1)["engines"] == {"x": [0.666667]}
    assert kept.find(model="b", threads=1) is None


def test_the_file_says_where_its_rows_are_from_and_has_a_line_for_each(kept):
    kept.put({"model": "a", "threads": 1})
    kept.put({"model": "b", "threads": 1})
    found = json.loads(kept.path.read_text())
    assert found["benchmark"] == "engines"
    assert found["machine"]["processor"] == records.machine()["processor"]
    assert found["rows"][0]["versions"]["numpy"] == version("numpy")
    assert len(found["rows"][0]["date"]) == len("2026-11-29")
    assert [json.loads(line.rstrip(",]}") + "}}")["model"] for line in kept.path.read_text().splitlines()[1:]] == [
        "a",
        "b",
    ]
    assert list(kept.path.parent.iterdir()) == [kept.path]  # no temporary file is left


def test_a_run_resumes_with_the_rows_of_the_same_commit_and_versions(kept):
    kept.put({"model": "a", "threads": 1})
    again = Records("engines", keys=kept.keys, path=kept.path)
    assert again.measured_now(model="a", threads=1) == kept.rows[0]
    assert again.measured_now(model="a", threads=2) is None
    kept.path.write_text(kept.path.read_text().replace(f'"numpy": "{version("numpy")}"', '"numpy": "0.1"'))
    assert again.measured_now(model="a", threads=1) is None


def test_another_processor_keeps_its_file(kept):
    kept.put({"model": "a", "threads": 1})
    before = kept.path.read_text().replace(f'"processor": "{records.machine()["processor"]}"', '"processor": "Z80"')
    kept.path.write_text(before)
    with pytest.raises(ValueError, match="has the figures of Z80"):
        kept.put({"model": "a", "threads": 2})
    assert kept.path.read_text() == before


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot make the folder"):
        Records("engines", keys=("model",), path=tmp_path / "file" / "x.json").put({"model": "a"})


def test_names_of_files():
    assert records.slug("AMD EPYC (Zen 3)") == "amd-epyc-zen-3"
    file = Records("training", keys=("model",)).path
    assert file.parent == Path(records.__file__).parent / "records"
    assert file.name.startswith("training-")
