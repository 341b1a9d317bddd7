"""What the source must not hold."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("fedsim", "clients", "strategies", "scenarios")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
FORBIDDEN = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.execv", "os.execvp", "os.spawnl"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "dill.load", "dill.loads", "cloudpickle.load"),
    *("cloudpickle.loads", "joblib.load", "shelve.open", "marshal.load", "marshal.loads", "pandas.read_pickle"),
    *("pd.read_pickle", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.load", "torch.hub.load"),
    *("subprocess.getoutput", "subprocess.getstatusoutput", "importlib.reload"),
}
UNSAFE = {"shell": True, "allow_pickle": True, "weights_only": False}
LAST_NAMES = "|".join({name.rpartition(".")[2] for name in FORBIDDEN} | set(UNSAFE))
SUSPECT = re.compile(rf"\b({LAST_NAMES})\b")
"""What a text holds if anything forbidden is in it, whatever it was imported as."""


def dotted(node: ast.expr) -> str:
    """Return a name with its attributes as it is written, and an empty string for anything else."""
    attributes = []
    while isinstance(node, ast.Attribute):
        attributes.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(attributes)]) if isinstance(node, ast.Name) else ""


def hits(text: str) -> list[str]:
    """Return what is forbidden in a module's text, under whatever name it was imported."""
    if not SUSPECT.search(text):
        return []
    tree = ast.parse(text)
    called = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            called |= {name.asname or name.name: f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            called |= {name.asname: name.name for name in node.names if name.asname}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            head, dot, rest = dotted(node).partition(".")
            name = called.get(head, head) + dot + rest
            found += [name] if name in FORBIDDEN else []
        elif isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant):
            found += [f"{node.arg}={node.value.value}"] if UNSAFE.get(node.arg or "", ...) is node.value.value else []
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_source_file_runs_what_it_reads(folder: str):
    """G4: no eval, no exec, no pickle, no shell."""
    files = [path for path in FILES if path.is_relative_to(ROOT / folder)]
    assert files
    found = {str(path.relative_to(ROOT)): hits(path.read_text("utf-8")) for path in files}
    assert {path: forbidden for path, forbidden in found.items() if forbidden} == {}


@pytest.mark.parametrize(
    "text",
    [
        "eval('1')", "exec('1')", "import pickle\npickle.loads(x)", "from pickle import loads\nloads(x)",
        "import pickle as p\np.load(x)", "from torch import load as f\nf(x)", "import torch\ntorch.load(x)",
        "import numpy as np\nnp.load(x, allow_pickle=True)", "import subprocess\nsubprocess.run(x, shell=True)",
        "import yaml\nyaml.load(x)", "f = eval", "load(x, weights_only=False)",
    ],
)  # fmt: skip
def test_the_search_finds_what_is_planted(text: str):
    """The teeth of G4."""
    assert hits(text)


def test_all_packages_were_searched():
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == set(FOLDERS)
    assert len(FILES) > 100
