"""Machine code as text, also for levels that this processor lacks."""

import re
import shutil
import subprocess

import pytest

OBJDUMP = next((tool for tool in ("llvm-objdump", "llvm-objdump-19", "llvm-objdump-21") if shutil.which(tool)), None)
needs_objdump = pytest.mark.skipif(OBJDUMP is None, reason="needs llvm-objdump")


def disassembly(path, target):
    every = ["--mattr=+dotprod"] if target.startswith("arm") else []  # else it knows no dot products
    command = [OBJDUMP, "-d", "--no-show-raw-insn", *every, path]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout
    return text.replace("{vex}", "")


def instructions(text):
    return re.findall(r"^\s*[0-9a-f]+:\s+([a-z][\w.]*)", text, re.MULTILINE)
