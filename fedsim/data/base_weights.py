"""The file of weights that a model begins with: its digest, by which a run knows it again."""

import hashlib
from functools import lru_cache
from pathlib import Path

from fedsim.mistakes import Mistake
from fedsim.scenario.schema import Adapt

PLACE = "training.adapt.base"


def base_digest(adapt: Adapt) -> str:
    """Return the SHA-256, in hex, of the file of base weights.

    Raises:
        Mistake: It can't be read, or has another digest than it had when the run was begun.
    """
    path = Path(adapt.base or "")
    try:
        found = path.stat()
        digest = _digest(path, found.st_mtime_ns, found.st_size)
    except OSError as error:
        raise Mistake(f"{PLACE}: expected a safetensors file, got {adapt.base!r}: {error.strerror}") from None
    if adapt.base_sha256 not in (None, digest):
        raise Mistake(
            f"{PLACE}: expected the weights that the run was begun with (SHA-256 {str(adapt.base_sha256)[:16]}...), "
            f"{adapt.base} has others ({digest[:16]}...)"
        )
    return digest


@lru_cache(maxsize=4)
def _digest(path: Path, changed: int, size: int) -> str:
    """Return a file's digest; it is computed again where the file's time or size is another."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
