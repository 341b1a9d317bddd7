"""Run pytest many times, in forks of a process that has imported the libraries: that takes longer than most tests.

Reads a JSON object from each line of its input: ``folder`` to run in, ``words`` for pytest, more ``environment`` and
``output``, a file for what pytest prints. Answers each with pytest's exit status. Nothing of fedsim is imported before
the fork, so that each run has the code of its own folder.
"""

import importlib
import json
import os
import sys
import traceback
from typing import Any

LIBRARIES = (
    *("dp_accounting.pld", "flwr.app", "flwr.clientapp", "flwr.serverapp.strategy", "matplotlib", "opacus", "pandas"),
    *("safetensors.torch", "scipy.stats", "torch", "typer"),
)  # without pytest's plugins, which it has to import itself


def run(asked: dict[str, Any]) -> int:
    """Run pytest in a fork, and return its exit status; -1 where it did not end by itself."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)
    code = 70  # what Python could not do, such as opening the file
    try:
        output = os.open(asked["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(asked["folder"])
        os.environ.update(asked["environment"])
        sys.path.insert(0, asked["folder"])
        import pytest  # in the fork: it is to rewrite the assertions of the tests that are there

        code = int(pytest.main(asked["words"]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Answer requests until the input ends."""
    os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1")
    for name in LIBRARIES:
        importlib.import_module(name)
    for line in sys.stdin:
        print(run(json.loads(line)), flush=True)  # noqa: T201  the answer


if __name__ == "__main__":
    main()
