"""Made-up rows of benchmarks/engines.py, and records of them."""

from tables import Record


def row(model, threads=1, *, ours, peers, plan="default", busy=False, mult_adds=10**8):
    """A row with (median, least) of the compiled file and of the other engines."""
    given = zip(("compiled", "onnxruntime", "openvino"), (ours, *peers), strict=False)
    engines = {
        name: {"median_ms": median, "min_ms": least, "max_ms": 2 * median, "share_of_peak": 0.5, "file_bytes": 10**6,
               "added_memory_bytes": 3 * 10**6, "added_private_bytes": 2000, "start_ms": 12.0}
        for name, (median, least) in given
    }  # fmt: skip
    return {
        "model": model, "threads": threads, "plan": plan, "busy": busy, "mult_adds": mult_adds, "engines": engines,
        "compile_seconds": 4.0, "kernels": 20, "kernels_cached": 3, "load": {"others": 0.02, "stolen": 0.01},
        "date": "2026-11-29", "commit": "abc", "versions": {"halide": "21.0.0"},
    }  # fmt: skip


def record(processor, *rows):
    machine = {"processor": processor, "cores": 2, "flags": ["avx2", "hypervisor"], "caches": {"L2": 2**20}}
    return Record({**machine, "system": "Linux 6.1"}, rows)
