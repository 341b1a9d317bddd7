"""Define tasks, read their rows, and divide rows among sites: all that a task file imports."""

from fedsim.data.form import ImageForm, RawColumns, TableForm, Windows
from fedsim.data.tables import Column, Levels, Number, encode
from fedsim.data.task import Rows, Task

__all__ = ["Column", "ImageForm", "Levels", "Number", "RawColumns", "Rows", "TableForm", "Task", "Windows", "encode"]
