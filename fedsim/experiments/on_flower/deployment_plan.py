"""The plan of a federation of real sites: a folder with all that the server and each site need, and what to type.

Nothing in it is started here. A site's folder holds its private key, so that it goes to that site alone.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from fedsim.experiments.on_flower.deployed import check
from fedsim.experiments.on_flower.flower_app import Kind, write_app
from fedsim.experiments.on_flower.programs import superlink_words, supernode_words
from fedsim.flower.certificates import Certificates, make_certificates, make_node_key
from fedsim.mistakes import Mistake
from fedsim.planning.trial import Trial
from fedsim.scenario.schema import Scenario
from fedsim.site import own_ledger, policy, real

CONNECTION = "fedsim"
"""The name of the SuperLink in the server's configuration of Flower."""

APP, RUN, SITES, SERVER = "app", "run", "sites", "server"
_PORT_OF_NODE = 9094
_HOME = "flower"
_SRV = Path("/srv/fedsim")
"""Where the README and the services put the folders."""

_POLICY = """\
# What {site} allows. It is read anew for each message, and no server can change it.
# In this folder lies the ledger of all that has left, too: fedsim deploy status .

# Units of privacy whose noise the site adds itself: "record", "local".
units = {units}
# The most that all private trainings together may spend, and at which delta; between which tables.
epsilon = {epsilon}
delta = {delta}
relation = "{relation}"
# The least noise multiplier, and the least number of sites in a training.
smallest_noise = {smallest_noise}
fewest_sites = {fewest_sites}
# Noise that the site draws itself: "secure". With "reproducible" the server could subtract it.
rng = "secure"
# The strategies whose rules the site follows.
strategies = {strategies}
# Whether exact models may leave, which no epsilon covers; and exact figures on the site's own rows.
plain = {plain}
evaluation = {evaluation}
"""

_UNIT = """\
[Unit]
Description=fedsim: {what}
After=network-online.target
Wants=network-online.target

[Service]
WorkingDirectory={folder}
Environment=FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1
ExecStart={command}
Restart=always
RestartSec=10

[Install]
WantedBy=multi-user.target
"""

_README = """\
# {title}

A federation of {count} real sites: {sites}. Each keeps its rows; the server at `{host}` sees what their policies let
out. Everywhere: Python 3.11 or later, and `fedsim-flower` of one and the same version.

## At each site

1. Copy its folder, `sites/NAME`, to the site and to nobody else: it holds the site's private key. (Or make the key
   there, `ssh-keygen -t ecdsa -b 384 -f node.key`, and send `node.key.pub` to the server in place of
   `server/keys/NAME.pub`.) The commands here and the services put it into `/srv/fedsim/NAME`.
2. Read `site-policy.toml` and write into it what the site allows. The numbers there are what this scenario asks for.
3. Put the site's rows beside it as `rows.csv`, with the columns of the task: `fedsim show {task}`.
4. Start the SuperNode, in that folder, with the whole path of the rows:

       {supernode}

   or let systemd do it: `fedsim-supernode.service`.
5. `fedsim deploy status .` says at any time what has left, and how much of the budget is spent.

A SuperNode runs the app that is submitted to its SuperLink. Policy and ledger are kept by this app's code, so a site
has to trust whoever may submit apps, or let its SuperNode run signed ones only (`flower-supernode --trusted-entities`).

## At the server

1. Start the SuperLink, in `server/`:

       {superlink}

   or let systemd do it: `fedsim-superlink.service`.
2. Let the sites in, each by its key, in `server/`. (`flower/config.toml` has the whole path of `ca.crt`, as Flower
   wants it: change it if you move the folder.)

{register}
3. Train, in `server/`, once or again after an interruption: it goes on where it was.

       FLWR_HOME={home} flwr run app {connection} --stream --run-config 'out="{out}"'

   The directory `out` then has the model, the ledger and `report.html`.

`compose.yaml` starts the SuperLink, and a SuperNode for each site, in containers of one machine: for a trial.
"""


@dataclass(frozen=True)
class Plan:
    """Where the parts of a plan are.

    Attributes:
        folder: The plan.
        files: The certificates of its SuperLink.
    """

    folder: Path
    files: Certificates

    @property
    def server(self) -> Path:
        """The server's folder."""
        return self.folder / SERVER

    @property
    def app(self) -> Path:
        """The app that is submitted."""
        return self.server / APP

    @property
    def home(self) -> Path:
        """Flower's configuration for the server."""
        return self.server / _HOME

    def site(self, name: str) -> Path:
        """The folder of a site."""
        return self.folder / SITES / name


def write_plan(scenario: Scenario, folder: Path, server: str, port: int) -> Plan:
    """Write the plan of a deployment.

    Args:
        scenario: The scenario, with its sites.
        folder: The directory to make.
        server: The name or address by which sites reach the server.
        port: Where its SuperLink listens.

    Raises:
        Mistake: The directory is taken, or real sites can't train the scenario.
        OSError: Something can't be written.
    """
    check(scenario)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Mistake(f"{folder}: expected a new or empty directory, it is taken")
    (folder / SERVER / "keys").mkdir(parents=True)
    plan = Plan(folder, make_certificates(folder / SERVER, _hosts(server)))
    real_app = Kind("deployed", "real", "each is a real site, with rows, a policy and a ledger of its own", {"out": ""})
    in_app = write_app(scenario, plan.app, real_app)
    plan.home.mkdir()
    connection = {"address": f"{server}:{port}", "root-certificates": str(plan.files.authority.absolute())}
    (plan.home / "config.toml").write_text(tomli_w.dumps({"superlink": {CONNECTION: connection}}))

    for site in scenario.deployment.sites:
        _write_site(plan, scenario, in_app.strategy.name, site, f"{server}:{port}")
    here = Certificates(Path("ca.crt"), Path("server.crt"), Path("server.key"))
    superlink = _line(superlink_words(port, here, "0.0.0.0", Path("superlink.db")))  # noqa: S104  a server
    (plan.server / "fedsim-superlink.service").write_text(
        _UNIT.format(what="SuperLink", folder=_SRV / SERVER, command=f"/usr/bin/env {superlink}")
    )
    (folder / "compose.yaml").write_text(_compose(scenario.deployment.sites, port))
    register = [
        f"       FLWR_HOME={_HOME} flwr supernode register 'keys/{site}.pub' {CONNECTION}"
        for site in scenario.deployment.sites
    ]
    (folder / "README.md").write_text(
        _README.format(
            title=scenario.title,
            count=len(scenario.deployment.sites),
            sites=", ".join(scenario.deployment.sites),
            host=f"{server}:{port}",
            task=scenario.task,
            supernode=_line(_supernode(f"{server}:{port}", "NAME", _SRV / "NAME")),
            superlink=superlink,
            register="\n".join(register),
            home=_HOME,
            connection=CONNECTION,
            out=_SRV / "runs" / "first",
        )
    )
    return plan


def node_config(site: str, folder: Path) -> str:
    """Return the node config of a site whose rows lie in a folder, by its whole path."""
    return f'site="{site}" data="{folder / "rows.csv"}"'


def _write_site(plan: Plan, scenario: Scenario, strategy: str, site: str, address: str) -> None:
    own = plan.site(site)
    own.mkdir(parents=True)
    private, public = make_node_key(own, "node")
    public.rename(plan.server / "keys" / f"{site}.pub")
    private.rename(own / "node.key")
    (own / "ca.crt").write_bytes(plan.files.authority.read_bytes())
    (own / policy.NAME).write_text(_policy(scenario, strategy, site))
    own_ledger.begin(own / real.LEDGER_FOLDER, site)
    place = _SRV / site
    command = f"/usr/bin/env {_line(_supernode(address, site, place))}"
    unit = _UNIT.format(what=f"SuperNode of {site}", folder=place, command=command)
    (own / "fedsim-supernode.service").write_text(unit)


def _policy(scenario: Scenario, strategy: str, site: str) -> str:
    """Return a policy that allows what the scenario asks for, and no more."""
    noise = Trial(scenario, scenario.seed, "federated").noise
    plain = _sends_exact_models(scenario)
    privacy = scenario.privacy
    values = {
        "units": [] if plain else [privacy.unit],
        "epsilon": privacy.epsilon or 1.0,
        "delta": privacy.delta or 1e-5,
        "smallest_noise": math.floor(100 * noise) / 100 if noise else 1.0,
        "fewest_sites": len(scenario.deployment.sites),
        "strategies": [strategy],
        "plain": plain,
        "evaluation": scenario.deployment.evaluation and plain,
    }
    return _POLICY.format(site=site, relation=privacy.relation, **{key: json.dumps(one) for key, one in values.items()})


def _sends_exact_models(scenario: Scenario) -> bool:
    return not policy.is_private_at_the_site(scenario)


def _hosts(server: str) -> list[str]:
    return list(dict.fromkeys([server, "localhost", "127.0.0.1", "superlink"]))


def _supernode(address: str, site: str, folder: Path) -> list[str]:
    return supernode_words(address, _PORT_OF_NODE, Path("ca.crt"), Path("node.key"), node_config(site, folder))


def _line(words: Sequence[str]) -> str:
    return " ".join(f"'{word}'" if set(word) & set(' "$;&|<>') else word for word in words)


def _compose(sites: Sequence[str], port: int) -> str:
    """Return a compose file: the SuperLink and each site in a container, of an image with fedsim-flower."""
    names = {site: f"site-{number}" for number, site in enumerate(sites)}
    here = Certificates(Path("ca.crt"), Path("server.crt"), Path("server.key"))
    lines = [
        "# An image with Python and fedsim-flower: FEDSIM_IMAGE=my/fedsim docker compose up",
        "services:",
        "  superlink:",
        "    image: ${FEDSIM_IMAGE}",
        "    working_dir: /server",
        f"    command: {_yaml(superlink_words(port, here, '0.0.0.0', Path('superlink.db')))}",  # noqa: S104
        "    volumes: [./server:/server]",
        f'    ports: ["{port}:{port}"]',
    ]
    for site, name in names.items():
        lines += [
            f"  {name}:",
            "    image: ${FEDSIM_IMAGE}",
            "    working_dir: /site",
            f"    command: {_yaml(_supernode(f'superlink:{port}', site, Path('/site')))}",
            f'    volumes: ["./sites/{site}:/site"]',
            "    depends_on: [superlink]",
        ]
    return "\n".join(lines) + "\n"


def _yaml(words: Sequence[str]) -> str:
    return "[" + ", ".join("'" + word.replace("'", "''") + "'" for word in words) + "]"
