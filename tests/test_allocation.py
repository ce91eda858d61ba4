"""What the C library does with freed memory, seen by the page faults of taking it again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# In a process of its own, so that what other tests have left on the heap plays no part.
COUNT = """
import resource
import torch
from ssl_inpaint import allocation

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        torch.ones(5 << 20), torch.ones(12 << 20)  # 20 and 48 MB: below and above what glibc ever keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

found = [faults()]
with allocation.kept():
    for _ in range(4):  # until the heap has gaps of the right sizes
        faults()
    found.append(faults())
found.append(faults())
print(*found)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_freed_memory_is_taken_again_without_page_faults_while_it_is_kept() -> None:
    done = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=True)
    before, inside, after = map(int, done.stdout.split())
    a_block = (48 << 20) // 4096  # pages of the system, of the larger tensor
    assert before > 2 * a_block
    assert inside < a_block / 10
    assert after > 2 * a_block
