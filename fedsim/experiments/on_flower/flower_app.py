"""Write a scenario as an app of Flower's, which ``flwr run`` starts wherever fedsim is installed.

The app holds the scenario and, where the strategy is code of the user's, its file. fedsim itself and the data of its
tasks are installed at the server and at the nodes: a bundle of Flower's takes neither tables nor more than 10 MB.
"""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from fedsim.experiments.on_flower.server_app import DEFAULTS
from fedsim.mistakes import Mistake
from fedsim.planning.checks import check
from fedsim.results.run_directory import write_scenario
from fedsim.scenario import catalog
from fedsim.scenario.schema import Scenario

PACKAGE = "fedsim_exported"

_PACKAGE_TEXT = '''"""A scenario of fedsim as an app of Flower's."""
'''
_SERVER = '''"""The server of this app: it runs the scenario beside it."""

from pathlib import Path

from fedsim.experiments.on_flower.{module} import app_for

app = app_for(Path(__file__).with_name("scenario.toml"){strategy})
'''
_CLIENT = '''"""The nodes of this app: {what}."""

from fedsim.site.{module} import app

__all__ = ["app"]
'''
_README = """# {title}

An app of Flower's, written by `fedsim flower export`. It needs `fedsim-flower` at the server and at each node.

```
flwr run .
flwr run . --run-config 'epsilon="2" out="/data/runs/mine"'
```

The run directory, with the report, is written where the server runs: into `out`, or into `runs/` there.
"""


def export(scenario: Scenario, folder: Path) -> None:
    """Write the app.

    Args:
        scenario: The scenario.
        folder: The directory to make.

    Raises:
        Mistake: The directory is taken, the scenario can't be run, or it is about a table of one's own.
        OSError: Something can't be written.
    """
    if scenario.data.path is not None:
        expected = "data.path: expected a task that comes with an installed package"
        raise Mistake(f"{expected}, since an app takes no rows of a table along")
    check(scenario)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Mistake(f"{folder}: expected a new or empty directory, it is taken")

    write_app(scenario, folder, SIMULATED)
    (folder / "README.md").write_text(_README.format(title=scenario.title))


@dataclass(frozen=True)
class Kind:
    """A kind of app.

    Attributes:
        server: The module of its ServerApp in ``fedsim.experiments.on_flower``.
        client: The module of its ClientApp in ``fedsim.site``.
        what: What its nodes do.
        config: Its run config.
    """

    server: str
    client: str
    what: str
    config: Mapping[str, str | int]


SIMULATED = Kind(
    "server_app",
    "node",
    "each trains the sites that are shared out to it",
    {key: value for key, value in DEFAULTS.items() if key not in ("scenario", "strategy")},
)


def write_app(scenario: Scenario, folder: Path, kind: Kind) -> Scenario:
    """Write an app with a scenario and, where its strategy is a file of the user's, that file.

    Returns:
        The scenario as it is in the app, where such a strategy has another name.

    Raises:
        Mistake: The strategy is in a package that has to be installed anyway.
        OSError: Something can't be written.
    """
    package = folder / PACKAGE
    package.mkdir(parents=True)
    named = ""
    if catalog.is_code(scenario.strategy.name):
        named = f"{PACKAGE}.{_copied(scenario.strategy.name, package)}"
        strategy = scenario.strategy.model_copy(update={"name": named})
        scenario = scenario.model_copy(update={"strategy": strategy})
    write_scenario(package, scenario)
    argument = f", {named!r}".replace("'", '"') if named else ""
    (package / "__init__.py").write_text(_PACKAGE_TEXT)
    (package / "server.py").write_text(_SERVER.format(module=kind.server, strategy=argument))
    (package / "client.py").write_text(_CLIENT.format(module=kind.client, what=kind.what))
    (folder / "pyproject.toml").write_text(tomli_w.dumps(_project(scenario, kind)))
    return scenario


def _copied(strategy: str, package: Path) -> str:
    """Copy the file of a strategy into the app; return ``module:Class``.

    Raises:
        Mistake: It is in a package that has to be installed anyway.
    """
    if not strategy.endswith(".py"):
        expected = "strategy.name: expected a file, or a strategy that comes with fedsim or Flower"
        raise Mistake(f"{expected}, got {strategy}; what is in a package of its own is not copied")
    loaded = catalog.load("strategies", strategy)
    module = re.sub(r"\W", "_", Path(strategy).stem)
    if module in ("server", "client", "scenario", "__init__"):
        module = f"own_{module}"
    shutil.copyfile(strategy, package / f"{module}.py")
    return f"{module}:{loaded.__name__}"


def _project(scenario: Scenario, kind: Kind) -> dict[str, object]:
    return {
        "project": {
            "name": f"fedsim-{re.sub(r'[^a-z0-9-]', '-', scenario.name.lower()).strip('-') or 'scenario'}",
            "version": "1.0.0",
            "description": scenario.title,
            "license": "Apache-2.0",
            "dependencies": ["fedsim-flower"],
        },
        "tool": {
            "flwr": {
                "app": {
                    "publisher": "fedsim",
                    "components": {
                        "serverapp": f"{PACKAGE}.server:app",
                        "clientapp": f"{PACKAGE}.client:app",
                    },
                    "config": dict(kind.config),
                }
            }
        },
    }
