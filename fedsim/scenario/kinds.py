"""The kinds of targets that a task may have."""

from typing import Literal

Kind = Literal["binary", "classes", "number"]
