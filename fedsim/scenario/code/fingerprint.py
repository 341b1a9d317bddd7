"""The digest of an object that is given in Python: of its code, and of the values that its code uses.

Two objects that could train differently have different digests, and an object that is made again by the same code has
the same digest in another process. Functions and classes of the user's are followed into what they call and capture;
what comes with Python or an installed package counts by its name, since the versions of those are written down anyway.
"""

import builtins
import dataclasses
import hashlib
import importlib.util
import inspect
import sys
import sysconfig
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, ClassVar

_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), type(NotImplemented))
_FREE_OF_MEANING = {"__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__annotations__"}

_opaque: dict[int, tuple[object, str]] = {}
"""{id: an object whose contents can't be read, and its name here}; kept, so that no other gets its id."""


def digest_of(thing: object) -> str:
    """Return the SHA-256, in hex, of an object: a task, a class, a function or any value."""
    return _Walk().digest_of(thing).hex()


class _Walk:
    """One walk over an object and all that it holds; the digest of a whole is made of the digests of its parts."""

    def __init__(self) -> None:
        self._found: dict[int, bytes] = {}
        self._under_way: list[int] = []
        self._kept: list[object] = []  # an object that is made on the way must not give its id to another

    def digest_of(self, thing: object) -> bytes:
        """Return the digest of an object."""
        if isinstance(thing, _PLAIN):
            return _digest([f"{type(thing).__name__} {thing!r}".encode("utf-8", "backslashreplace")])
        key = id(thing)
        if key in self._found:
            return self._found[key]
        if key in self._under_way:  # a function that calls itself, say
            return _digest([f"{len(self._under_way) - self._under_way.index(key)} steps up".encode()])

        self._kept.append(thing)
        self._under_way.append(key)
        self._found[key] = _digest(self._contents(thing))
        self._under_way.pop()
        return self._found[key]

    def parts_of(self, thing: object) -> Iterator[bytes]:
        """Yield what stands for an object in the digest of a whole."""
        yield self.digest_of(thing)

    def _contents(self, thing: Any) -> Iterator[bytes]:  # noqa: ANN401  anything
        for kinds, contents in self._KINDS:
            if isinstance(thing, kinds):
                return contents(self, thing)
        return self._instance(thing)

    def _module(self, module: ModuleType) -> Iterator[bytes]:
        yield f"module {module.__name__}".encode()

    def _method(self, method: MethodType) -> Iterator[bytes]:
        yield b"method"
        yield from self.parts_of(method.__func__)
        yield from self.parts_of(method.__self__)

    def _builtin(self, function: BuiltinFunctionType) -> Iterator[bytes]:
        yield f"builtin {function.__module__}.{function.__qualname__}".encode()

    def _sequence(self, values: tuple[Any, ...] | list[Any]) -> Iterator[bytes]:
        yield f"{type(values).__name__} of {len(values)}".encode()
        for value in values:
            yield from self.parts_of(value)

    def _set(self, values: set[Any] | frozenset[Any]) -> Iterator[bytes]:
        yield f"set of {len(values)}".encode()
        yield from sorted(self.digest_of(value) for value in values)

    def _mapping(self, values: Mapping[Any, Any]) -> Iterator[bytes]:
        yield f"mapping of {len(values)}".encode()
        for key, value in values.items():
            yield from self.parts_of(key)
            yield from self.parts_of(value)

    def _wrapped(self, method: Any) -> Iterator[bytes]:  # noqa: ANN401  a static method or one of a class
        yield type(method).__name__.encode()
        yield from self.parts_of(method.__func__)

    def _property(self, found: property) -> Iterator[bytes]:
        yield b"property"
        yield from self.parts_of((found.fget, found.fset, found.fdel))

    def _function(self, function: FunctionType) -> Iterator[bytes]:
        yield _name_of(function)
        if _is_installed(function):
            return
        yield from self._code(function.__code__)
        yield from self.parts_of(function.__defaults__)
        yield from self.parts_of(function.__kwdefaults__)
        for cell in function.__closure__ or ():
            try:
                captured = cell.cell_contents
            except ValueError:  # not yet set
                yield b"empty cell"
            else:
                yield from self.parts_of(captured)
        for name in sorted(_names_in(function.__code__)):
            if name in function.__globals__:
                yield name.encode()
                yield from self.parts_of(function.__globals__[name])

    def _code(self, code: CodeType) -> Iterator[bytes]:
        yield code.co_code
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        yield repr((names, code.co_argcount, code.co_kwonlyargcount, code.co_flags)).encode()
        for constant in code.co_consts:
            yield from self.parts_of(constant)

    def _class(self, kind: type) -> Iterator[bytes]:
        yield _name_of(kind)
        if _is_installed(kind):
            return
        for base in kind.__bases__:
            yield from self.parts_of(base)
        for name, value in sorted(vars(kind).items()):
            is_machinery = name.startswith("__") and not isinstance(value, FunctionType | staticmethod | classmethod)
            if name in _FREE_OF_MEANING or name == "_abc_impl" or is_machinery:
                continue
            yield name.encode()
            yield from self.parts_of(value)
        if dataclasses.is_dataclass(kind):
            for field in dataclasses.fields(kind):
                yield field.name.encode()
                yield from self.parts_of((field.default, field.default_factory))

    def _instance(self, thing: Any) -> Iterator[bytes]:  # noqa: ANN401  anything
        """Yield the parts of an object by what it would be copied from."""
        array = _as_array(thing)
        if array is not None:
            kind, content = array
            yield kind.encode()
            yield content
            return
        if isinstance(thing, Path):
            yield f"path {thing}".encode()
            return
        yield b"instance"
        yield from self.parts_of(type(thing))
        try:
            made_from = thing.__reduce_ex__(2)
        except Exception:  # a lock, a file, a generator: nothing tells two of them apart
            yield _token_of(thing)
            return
        if isinstance(made_from, str):
            yield made_from.encode()
            return
        for part in made_from:
            is_iterator = hasattr(part, "__next__")
            yield from self.parts_of(list(part) if is_iterator else part)

    _KINDS: ClassVar[tuple[tuple[Any, Callable[..., Iterator[bytes]]], ...]] = (
        (ModuleType, _module),
        (FunctionType, _function),
        (type, _class),
        (MethodType, _method),
        (BuiltinFunctionType, _builtin),
        (CodeType, _code),
        ((tuple, list), _sequence),
        ((set, frozenset), _set),
        (Mapping, _mapping),
        ((staticmethod, classmethod), _wrapped),
        (property, _property),
    )


def _digest(parts: Iterable[bytes]) -> bytes:
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(len(part).to_bytes(8, "little"))
        hashed.update(part)
    return hashed.digest()


def _name_of(thing: Any) -> bytes:  # noqa: ANN401  a function or class
    return f"{thing.__module__}.{thing.__qualname__}".encode()


def _token_of(thing: object) -> bytes:
    """Return a name of an object that can't be read, which no other has, in this process or another."""
    if id(thing) not in _opaque:
        _opaque[id(thing)] = (thing, uuid.uuid4().hex)
    return _opaque[id(thing)][1].encode()


def _as_array(thing: Any) -> tuple[str, bytes] | None:  # noqa: ANN401  anything
    """Return kind and content of an array of NumPy or a tensor of PyTorch; None for anything else."""
    if "torch" in sys.modules and isinstance(thing, sys.modules["torch"].Tensor):
        thing = thing.detach().cpu().numpy()
    if "numpy" in sys.modules and isinstance(thing, sys.modules["numpy"].ndarray) and thing.dtype != object:
        return f"array {thing.dtype.str} {thing.shape}", thing.tobytes()
    return None


def _names_in(code: CodeType) -> set[str]:
    """Return the names that code looks up, also in the functions inside it."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names_in(constant)
    return names


def _is_installed(thing: FunctionType | type) -> bool:
    """Whether a function or class comes with Python or a package, and is not the user's own."""
    if thing.__module__ == "builtins":  # said as well of what is made where nothing has a name
        return getattr(builtins, thing.__name__, None) is thing
    return _comes_along(thing.__module__)


@cache
def _comes_along(module: str | None) -> bool:
    """Whether a module comes with Python, with fedsim or with an installed package, and is not the user's own."""
    if module is None or module == "__main__":
        return False
    if module in sys.builtin_module_names or module.partition(".")[0] == "fedsim":
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return False
    folders = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    for package in ("clients", "strategies"):  # the digest of fedsim's code covers them
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            folders.append(Path(next(iter(spec.submodule_search_locations))).resolve())
    return any(Path(file).resolve().is_relative_to(folder) for folder in folders)


def source_text_of(thing: object) -> str:
    """Return the source text of a class, or of the functions of an object; empty where there is none to be found."""
    if isinstance(thing, type):
        found = [thing]
    elif dataclasses.is_dataclass(thing):
        found = [getattr(thing, field.name) for field in dataclasses.fields(thing)]
    else:
        found = [thing]
    texts = []
    for part in found:
        if not isinstance(part, type | FunctionType):
            continue
        try:
            texts.append(inspect.getsource(part))
        except (OSError, TypeError):
            continue
    return "\n".join(texts)
