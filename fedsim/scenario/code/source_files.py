"""Import a file of the user's as it was read, and again when it was changed."""

import hashlib
import importlib.util
import os
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

from fedsim.mistakes import Mistake
from fedsim.scenario.reading import read_ordinary

_LARGEST_SOURCE = 2**20  # bytes of a file with code


class _AsRead(SourceFileLoader):
    """Loads the very bytes that were read: bytecode that lies beside a file may be of what it was a second before."""

    def __init__(self, name: str, path: str, content: bytes) -> None:
        super().__init__(name, path)
        self._content = content

    def get_code(self, fullname: str) -> CodeType:
        """Compile the bytes."""
        return self.source_to_code(self._content, self.path)


def source_of(path: Path) -> bytes:
    """Read a file with code.

    Raises:
        Mistake: There is none, or it is no ordinary file.
    """
    try:
        return read_ordinary(path, _LARGEST_SOURCE)
    except FileNotFoundError:
        raise Mistake(f"{path}: expected a Python file, there is none") from None
    except OSError as error:
        raise Mistake(f"{path}: expected a Python file, got: {error.strerror}") from None


def module_of(path: Path) -> Any:  # noqa: ANN401  a module
    """Import a file, once, and again when it was changed.

    Raises:
        Mistake: There is none.
        Exception: Whatever its code raises.
    """
    content = source_of(path)
    key = f"strategy {hashlib.sha256(content).hexdigest()} of {path.resolve()}"
    if key not in sys.modules:
        spec = importlib.util.spec_from_file_location(key, path, loader=_AsRead(key, str(path), content))
        if spec is None or spec.loader is None:
            raise Mistake(f"{path}: expected a Python file")
        sys.modules[key] = importlib.util.module_from_spec(spec)
        here = Path.cwd()
        try:
            spec.loader.exec_module(sys.modules[key])
        except BaseException:
            del sys.modules[key]
            raise
        finally:
            os.chdir(here)  # the paths that the user gave are meant from here
    return sys.modules[key]
