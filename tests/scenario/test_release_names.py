"""A scenario's noise is named by all that shapes it; a version that brings a key renames only what uses the key."""

from typing import Any

import pytest

from fedsim.experiments.trainings import _name_of_same
from fedsim.scenario.schema import _YOUNGER_KEYS, Data, Partition, Scenario, Training

RECORDS = {"name": "records", "title": "T", "task": "hospital/heart", "privacy": {"epsilon": 2, "delta": 1e-3}}
SITES = {
    "name": "sites",
    "title": "T",
    "task": "synthetic/images",
    "partition": {"by": "made", "sites": 200},
    "privacy": {"unit": "client", "epsilon": 4, "delta": 1e-3},
    "secure_aggregation": {"on": True},
}
OWN_TABLE = {
    "name": "own-table",
    "title": "T",
    "data": {"path": "table.csv", "sha256": "0" * 64, "target": "ill", "site": "clinic", "kind": "binary"},
}


@pytest.mark.parametrize(
    ("values", "release", "trainings"),
    [
        (
            RECORDS,
            "5a2817b6d3ac6fb7a01edd5e83767c81",
            "77f26b224e8a9914bc29f71ac2df3789a4ffabbfb49f051a0b72c5ef59f89ae4",
        ),
        (SITES, "65ddfdd379b7695349b1c02a90515cde", "656351275611b9f3017532125cb2673e0216fa34bef224478435300a47984e0f"),
        (
            OWN_TABLE,
            "3d7051a6efaf3f206e79d7ac7c5bca97",
            "c162d76fbb847f80ccbd90a3d0ae08806f0e87b3c30ee5fa14cb38f4648aaf32",
        ),
    ],
    ids=lambda values: values["name"] if isinstance(values, dict) else "",
)
def test_names_are_those_of_older_versions(values: dict[str, Any], release: str, trainings: str):
    """If a new key makes this fail, it belongs into ``_YOUNGER_KEYS``: else the noise of every scenario is another."""
    asked = Scenario.model_validate(values)
    assert asked.release == release
    assert _name_of_same(asked) == trainings


SAID = {
    "layout": ({"path": "folder", "layout": "site/class"}, Data),
    "image": ({"image": "file"}, Data),
    "person": ({"person": "patient"}, Data),
    "image_size": ({"image_size": [8, 8]}, Data),
    "channels": ({"channels": 1}, Data),
    "classes": ({"classes": ["a", "b"]}, Data),
    "column": ({"by": "column", "column": "sex"}, Partition),
    "mapping": ({"by": "mapping", "mapping": {"a": "b"}}, Partition),
    "shares": ({"by": "shares", "shares": [0.25, 0.75]}, Partition),
    "size_classes": ({"by": "size-classes", "size_classes": {"large": {"sites": 2, "share": 1.0}}}, Partition),
    "schedule": ({"schedule": {"name": "cosine"}}, Training),
    "stopping": ({"stopping": {}}, Training),
    "replace_batch_norm": ({"replace_batch_norm": True}, Training),
    "adapt": ({"adapt": {"method": "head"}}, Training),
    "precision": ({"precision": "bf16"}, Training),
}


def test_a_younger_key_that_says_something_is_in_the_name():
    sections = {key: section for section, keys in _YOUNGER_KEYS.items() for key in keys}
    assert sections.keys() == SAID.keys()
    silent = Scenario.model_validate(RECORDS)
    assert silent.unused_younger_keys() == {section: set(keys) for section, keys in _YOUNGER_KEYS.items()}

    for key, (values, kind) in SAID.items():
        asked = Scenario.model_validate(RECORDS).model_copy(update={sections[key]: kind.model_validate(values)})
        assert key not in asked.unused_younger_keys()[sections[key]], key
        assert (asked.release == silent.release) == (key == "stopping"), key  # it changes no round
        assert _name_of_same(asked) != _name_of_same(silent), key
