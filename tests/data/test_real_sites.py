"""The federation as a server and its sites see it: who has which rows."""

from pathlib import Path

import numpy as np
import pytest
import torch

from clients.hospital import heart, heart_tables
from fedsim.data.federation import federate
from fedsim.data.real_sites import OwnRows, federate_real_sites
from fedsim.mistakes import Mistake
from fedsim.scenario.files import read
from tests.real_sites import PLAIN, PRIVATE, ROUNDS, SITES, scenario


@pytest.fixture
def own(tmp_path: Path) -> OwnRows:
    heart_tables()["hungarian"].to_csv(tmp_path / "rows.csv", index=False)
    return OwnRows("hungarian", tmp_path / "rows.csv")


def test_a_server_knows_names_and_shapes_only():
    federation = federate_real_sites(scenario(*PLAIN), 0, "cpu", None)
    assert federation.names == SITES
    assert all(part.inputs.shape == (0, 30) for site in federation.sites for part in (site.train, site.test))


def test_a_site_has_the_rows_that_it_has_in_the_simulation(own: OwnRows):
    federation = federate_real_sites(scenario(*PLAIN), 3, "cpu", own)
    simulated = federate(read("hospital-heart", [*ROUNDS, "privacy.unit=none"]), 3)
    assert [len(site.train) > 0 for site in federation.sites] == [False, True, False, False]
    for part in ("train", "validation", "test"):
        here, there = (getattr(one.sites[1], part) for one in (federation, simulated))
        assert torch.equal(here.inputs, there.inputs)
        assert torch.equal(here.target, there.target)


def test_under_privacy_every_row_is_for_training_so_that_none_moves_another(own: OwnRows):
    site = federate_real_sites(scenario(*PRIVATE), 0, "cpu", own).sites[1]
    rows = heart.read(own.path)  # type: ignore[misc]
    assert np.array_equal(site.train.inputs.numpy(), rows.inputs)
    assert np.array_equal(site.train.target.numpy(), rows.target)
    assert len(site.validation) == len(site.test) == 0


def test_a_file_of_another_kind_is_refused_without_its_values(own: OwnRows):
    own.path.write_text("age,target\n4711,1\n")
    with pytest.raises(Mistake, match=r"expected the columns age, sex, cp, .* it has no sex, cp") as caught:
        federate_real_sites(scenario(*PRIVATE), 0, "cpu", own)
    assert "4711" not in str(caught.value)
    own.path.unlink()
    with pytest.raises(Mistake, match=r"rows\.csv: expected a file that can be read, got No such file"):
        federate_real_sites(scenario(*PRIVATE), 0, "cpu", own)
