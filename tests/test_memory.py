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
    for step in range(30):
        if step == 10:  # malloc has sorted its odd ends by then
            before = faults()
        bytearray(2**26)
    print(faults() - before)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

threading.Thread(target=use_memory).start()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have another malloc")
def test_freed_memory_is_used_again() -> None:
    """What a thread takes, fills and frees again and again costs the system pages once, not every time."""

    def faults(*arguments: str) -> int:
        command = [sys.executable, "-c", FAULTS_OF_A_THREAD, *arguments]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert faults("kept") * 10 < faults()
