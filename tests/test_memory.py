"""The memory that a process takes from the system."""

import subprocess
import sys

import pytest

FAULTS_OF_A_THREAD = """
import resource, sys, threading
from fedsim import memory

if "kept" in sys.argv:
    memory.keep_freed()

def use_memory():
    for step in range(20):
        if step == 10:  # malloc has sorted its odd ends by then
            before = faults()
        [bytearray(2**24) for _ in range(10)]
    print(faults() - before)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

threading.Thread(target=use_memory).start()
"""

RESIDENT_AFTER = """
import sys
from fedsim import memory

memory.keep_freed()

def resident():  # KiB
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

before = resident()
bytearray(2 ** int(sys.argv[1]))
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have another malloc")
def test_freed_memory_is_used_again() -> None:
    """What a thread takes, fills and frees again and again costs the system pages once, not every time."""

    def faults(*arguments: str) -> int:
        command = [sys.executable, "-c", FAULTS_OF_A_THREAD, *arguments]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert faults("kept") * 10 < faults()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have another malloc")
def test_the_largest_tensors_go_back_to_the_system() -> None:
    """Gaps between them would cost a large model more memory than it needs; smaller ones are kept."""

    def resident_after(bits: int) -> int:
        command = [sys.executable, "-c", RESIDENT_AFTER, str(bits)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert resident_after(24) > 2**13  # KiB: half of 16 MiB
    assert resident_after(26) < 2**13


def test_cycles_of_objects_are_still_found() -> None:
    """Whoever asks for it seldom has it done all the same, and no more often."""
    script = """
import gc, weakref
from fedsim import memory

class Ring:
    pass

memory.collect_seldom()
ring = Ring()
ring.itself = ring
found = []
ended = weakref.ref(ring, lambda _: found.append(len(kept)))
kept = []
del ring
while not found:
    kept.append([])
print(found[0])
"""
    out = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout

    assert 10_000 < int(out) < 1_000_000
