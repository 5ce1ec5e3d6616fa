"""The name of the processor."""

import os
import platform
import subprocess
import sys
from pathlib import Path


def cpu_name() -> str:
    """The processor's name from its vendor, with the number of cores."""
    name = platform.processor() or platform.machine()
    cpuinfo, board = Path("/proc/cpuinfo"), Path("/proc/device-tree/model")
    if sys.platform == "darwin":
        asked = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False
        )
        name = asked.stdout.strip() or name
    elif cpuinfo.exists():
        models = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0] if models else board.read_text().strip("\0\n") if board.exists() else name
    return f"{name}, {os.cpu_count()} cores"
