"""A federation of real sites: what comes of it, what is lost and found, and that no row is where it should not be."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from flwr.app import Message
from safetensors.torch import load_file

from fedsim.experiments.arms import GLOBAL, Job, run_job
from fedsim.experiments.on_flower import deployed
from fedsim.mistakes import Mistake, RunFailed
from fedsim.results.seal import check_seal
from fedsim.scenario.files import read
from fedsim.site import own_ledger
from tests.real_sites import FREE, PLAIN, POLICY, PRIVATE, ROUNDS, SITES, Hospitals, scenario, settle, train

SCAFFOLD = 'strategy={name="scaffold"}'


@pytest.fixture
def sites(tmp_path: Path) -> Path:
    return settle(tmp_path / "sites", FREE)


def same_models(folder: Path, *changes: str) -> bool:
    """Whether a deployment's model is that of the simulation, bit for bit."""
    told = read("hospital-heart", [*ROUNDS, "privacy.unit=none", *changes])
    simulated = run_job(told, Job("federated", False, 0), lambda number: None).models[GLOBAL]
    trained = load_file(folder / "model.safetensors")
    return set(trained) == set(simulated) and all(torch.equal(trained[name], simulated[name]) for name in trained)


@pytest.mark.whole
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param((), id="fedavg"),
        pytest.param((SCAFFOLD,), id="scaffold"),
        pytest.param(('strategy={name="ditto"}',), id="ditto"),
    ],
)
def test_the_model_is_that_of_the_simulation_bit_for_bit(sites: Path, tmp_path: Path, changes: tuple[str, ...]):
    out = train(scenario(*PLAIN, *changes), Hospitals(sites), tmp_path / "out")
    assert same_models(out, *changes)


@pytest.mark.whole
def test_the_ledgers_of_server_sites_and_simulation_say_the_same(tmp_path: Path):
    folder = settle(tmp_path / "sites")
    out = train(scenario(*PRIVATE), Hospitals(folder), tmp_path / "out")
    (training,) = json.loads((out / "ledger.json").read_text())["trainings"]
    told = read("hospital-heart", [*ROUNDS, *PRIVATE])
    simulated = run_job(told, Job("federated", True, 0), lambda number: None).ledger
    assert simulated is not None
    assert {key: training[key] for key in ("charged", "epsilon", "entries")} == simulated.as_json()
    for site in SITES:
        with own_ledger.opened(folder / site / "fedsim-ledger", site) as ledger:
            own = [one.mechanism for one in simulated.entries if one.site == site]
            assert [entry.release for entry in ledger.entries] == own
            assert ledger.epsilon(1e-4, "add-or-remove-one") == training["epsilon"][site]


@pytest.mark.whole
def test_the_directory_is_whole_and_its_page_says_what_can_not_be_known(tmp_path: Path):
    out = train(scenario(*PRIVATE), Hospitals(settle(tmp_path / "sites")), tmp_path / "out")
    check_seal(out, 2**30)
    page = (out / "report.html").read_text()
    for words in ("This can&#39;t be known here", "nothing to compare it with", "Checked by each site", "Epsilon 1.52"):
        assert words in page
    assert 'src="http' not in page
    about = json.loads((out / deployed.ABOUT).read_text())
    assert [site["figures"] for site in about["sites"]] == [None] * 4
    assert about["notes"] == []


@pytest.mark.whole
def test_figures_are_the_sites_own(sites: Path, tmp_path: Path):
    out = train(scenario(*PLAIN), Hospitals(sites), tmp_path / "out")
    told = read("hospital-heart", [*ROUNDS, "privacy.unit=none"])
    scores = run_job(told, Job("federated", False, 0), lambda number: None).scores.set_index("site")
    for site in json.loads((out / deployed.ABOUT).read_text())["sites"]:
        figures = scores.loc[site["site"], ["rows", "auc", "accuracy", "log_loss"]]
        assert site["figures"] == pytest.approx(dict(figures), rel=1e-6)
    assert "4 sites measured the final model on their own test rows" in (out / "report.html").read_text()


@pytest.mark.whole
def test_a_site_that_gives_no_figures_is_left_blank(sites: Path, tmp_path: Path):
    settled = settle(tmp_path / "other", {**FREE, "evaluation": False}, SITES[:1])
    shutil.copytree(settled / SITES[0], sites / SITES[0], dirs_exist_ok=True)
    out = train(scenario(*PLAIN), Hospitals(sites), tmp_path / "out")
    about = json.loads((out / deployed.ABOUT).read_text())
    assert [site["figures"] is None for site in about["sites"]] == [True, False, False, False]


class Losing:
    """Loses some of the replies of a site, by their numbers."""

    def __init__(self, site: str, *numbers: int) -> None:
        self.site = site
        self.numbers = numbers
        self.count = 0

    def __call__(self, site: str, reply: Message) -> Message | None:
        if site != self.site or reply.metadata.message_type != "train":
            return reply
        self.count += 1
        return None if self.count in self.numbers else reply


@pytest.mark.whole
def test_an_answer_that_was_lost_is_given_again_and_charged_once(tmp_path: Path):
    folder = settle(tmp_path / "sites", {**FREE, "rng": "secure"})
    hospitals = Hospitals(folder, on_the_way=Losing(SITES[1], 1, 3, 4))
    out = train(scenario(*PLAIN), hospitals, tmp_path / "out")
    assert same_models(out)
    assert hospitals.asked.count((SITES[1], "train")) == 6
    assert len((folder / SITES[1] / "fedsim-ledger" / own_ledger.NAME).read_text().splitlines()) == 1 + 3 + 1


@pytest.mark.whole
def test_a_site_that_is_gone_is_done_without_named_and_charged_as_planned(tmp_path: Path):
    folder = settle(tmp_path / "sites")
    hospitals = Hospitals(folder, on_the_way=Losing(SITES[3], *range(2, 20)))
    out = train(scenario(*PRIVATE), hospitals, tmp_path / "out")
    about = json.loads((out / deployed.ABOUT).read_text())
    assert about["sites"][3]["rounds_missed"] == 2
    assert about["notes"] == [f"round {number}: {SITES[3]} was left out: did not answer" for number in (2, 3)]
    entries = json.loads((out / "ledger.json").read_text())["trainings"][0]["entries"]
    assert sum(entry["site"] == SITES[3] for entry in entries) == 3


@pytest.mark.whole
def test_too_few_answers_end_it_and_the_same_command_goes_on(sites: Path, tmp_path: Path):
    told = scenario(*PLAIN, "deployment.fewest_answers=4")
    broken = Hospitals(sites, on_the_way=Losing(SITES[2], *range(2, 20)))
    with pytest.raises(RunFailed, match=r"3 of 4 sites answered, expected at least 4 .* the same command goes on from"):
        train(told, broken, tmp_path / "out")
    assert not (tmp_path / "out" / deployed.ABOUT).exists()
    out = train(told, Hospitals(sites), tmp_path / "out")
    assert same_models(out)
    for site in SITES:
        entries = (sites / site / "fedsim-ledger" / own_ledger.NAME).read_text().splitlines()[1:]
        assert [json.loads(entry)["what"] for entry in entries] == ["train"] * 3 + ["evaluate"]


def test_what_sites_refuse_is_said_with_their_names(tmp_path: Path):
    folder = settle(tmp_path / "sites")  # which allows no plain training
    with pytest.raises(RunFailed) as caught:
        train(scenario(*PLAIN), Hospitals(folder), tmp_path / "out")
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    asked = "expected noise that the site adds itself, the server asks for no noise"
    assert lines[1] == f"  {SITES[0]}: refused by the site: {asked}"


@pytest.mark.whole
def test_a_site_that_refuses_is_done_without_where_enough_others_answer(tmp_path: Path):
    folder = settle(tmp_path / "sites", POLICY, SITES[1:])
    settle(tmp_path / "sites", {**POLICY, "smallest_noise": 5.0}, SITES[:1])
    out = train(scenario(*PRIVATE), Hospitals(folder), tmp_path / "out")
    about = json.loads((out / deployed.ABOUT).read_text())
    assert about["sites"][0]["rounds_missed"] == 3
    assert "refused by the site: noise multiplier: expected at least 5, got 3" in about["notes"][0]
    assert len((folder / SITES[0] / "fedsim-ledger" / own_ledger.NAME).read_text().splitlines()) == 1


@pytest.mark.whole
def test_sites_that_do_not_come_and_those_that_come_twice(sites: Path, tmp_path: Path):
    told = scenario(*PLAIN, "deployment.seconds_to_come=0.1")
    with pytest.raises(RunFailed, match=rf"expected all sites within 0\.1 seconds, missing: {SITES[3]}"):
        train(told, Hospitals(sites, SITES[:3]), tmp_path / "out")
    with pytest.raises(RunFailed, match=f"two nodes say that they are {SITES[0]}: 2 and 6"):
        train(told, Hospitals(sites, [*SITES, SITES[0]]), tmp_path / "out")
    assert same_models(train(told, Hospitals(sites, [*reversed(SITES), "a stranger"]), tmp_path / "out"))


@pytest.mark.whole
def test_a_directory_is_one_deployments(sites: Path, tmp_path: Path):
    out = train(scenario(*PLAIN), Hospitals(sites), tmp_path / "out")
    with pytest.raises(Mistake, match="this one is finished"):
        train(scenario(*PLAIN), Hospitals(sites), out)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(Mistake, match="it is taken"):
        train(scenario(*PLAIN), Hospitals(sites), tmp_path / "mine")
    (out / deployed.ABOUT).unlink()
    with pytest.raises(Mistake, match="begun with this scenario, got another one's"):
        train(scenario(*PLAIN, "training.rounds=4"), Hospitals(sites), out)


WRONG = {
    "no sites": ("deployment.sites=[]", "deployment.sites: expected the names of the sites"),
    "a seed's noise": ("privacy.rng=reproducible", "privacy.rng: expected 'secure'"),
    "faults": ("faults={drop_out=0.1}", "attack, faults: expected none"),
    "a partition": ('partition={by="iid", sites=4}', "partition: expected by = 'natural'"),
    "masks": ("secure_aggregation={drop_outs=1}", "secure_aggregation: expected none"),
    "virtual time": ("training.duration_spread=0.5", "training.duration_spread: expected 0"),
    "a task whose rows are made up": ('task="synthetic/noisy"', "task: expected one that declares its columns"),
    "more answers than sites": ("deployment.fewest_answers=5", "deployment.fewest_answers: expected at most the 4"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_real_sites_can_not_train_is_refused(name: str):
    change, said = WRONG[name]
    with pytest.raises(Mistake, match=re.escape(said)):
        deployed.check(scenario(*PRIVATE, change))


def test_a_run_of_a_simulation_refuses_real_sites(tmp_path: Path):
    from fedsim.experiments.experiment import execute

    with pytest.raises(Mistake, match=r"deployment\.sites: expected none in a simulation"):
        execute(scenario(*PRIVATE), tmp_path / "run")


WATCHED = """
import json, sys
from pathlib import Path
from tests import real_sites

folder, opened, place = Path(sys.argv[1]), [], ["server"]

def note(event, args):
    if event == "open" and isinstance(args[0], str) and args[0].endswith((".csv", ".csv.gz")):
        opened.append((place[-1], args[0]))

answer_of = real_sites.Hospitals._answer_of

def at_the_site(grid, message):
    place.append(grid.names[message.metadata.dst_node_id - 2])
    try:
        return answer_of(grid, message)
    finally:
        place.pop()

real_sites.settle(folder / "sites")
real_sites.Hospitals._answer_of = at_the_site
sys.addaudithook(note)
told = real_sites.scenario(*real_sites.PRIVATE)
real_sites.train(told, real_sites.Hospitals(folder / "sites"), folder / "out")
print(json.dumps(opened))
"""


@pytest.mark.whole
def test_a_site_opens_its_own_rows_alone_and_the_server_none(tmp_path: Path):
    """Python tells of each file that it opens, whoever opens it."""
    ended = subprocess.run([sys.executable, "-c", WATCHED, str(tmp_path)], capture_output=True, text=True, check=True)
    opened = json.loads(ended.stdout)
    assert {tuple(pair) for pair in opened} == {(site, str(tmp_path / "sites" / site / "rows.csv")) for site in SITES}


def _files_of(folder: Path) -> Iterator[Path]:
    yield from (path for path in folder.rglob("*") if path.is_file())


@pytest.mark.whole
def test_the_servers_directory_holds_no_row(sites: Path, tmp_path: Path):
    """Nor does what it holds name a row's value: the whole directory is searched for rows of the sites' files."""
    out = train(scenario(*PLAIN), Hospitals(sites), tmp_path / "out")
    rows = [line.encode() for site in SITES for line in (sites / site / "rows.csv").read_text().splitlines()[1:50]]
    for path in _files_of(out):
        content = path.read_bytes()
        assert not any(row in content for row in rows)
