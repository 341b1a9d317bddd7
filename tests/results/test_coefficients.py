"""The coefficients that are shown give the model's answers, from the columns' own values."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from fedsim.data.scale import Scale
from fedsim.data.tables import Levels, Number, encode
from fedsim.data.task import Rows, Task
from fedsim.results.coefficients import INTERCEPT, coefficients
from fedsim.scenario.kinds import Kind

COLUMNS = (
    Number("age", 20, 100, "years"),
    Number("chol", 80, 620, "mg/dl", missing=True),
    Levels("sex", ("f", "m")),
)
FRAME = pd.DataFrame({"age": [20.0, 47.0, 99.0], "chol": [100.0, 600.0, np.nan], "sex": ["f", "m", "m"]})


def task(kind: Kind, columns: tuple = COLUMNS) -> Task:
    rows = Rows(np.zeros((1, 5), np.float32), np.zeros(1, np.float32), np.array(["a"]))
    outcome = Number("days", 0, 60, "days") if kind == "number" else None
    return Task("t", "o", "s", columns, nn.Linear, load=lambda: rows, kind=kind, range=outcome)


def model_of(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make()


def by_hand(table: pd.DataFrame, output: int) -> list[float]:
    """Add up an output from the columns' own values, by what the table shows."""
    of_output = {row["input"]: row for row in table[table["output"] == output].to_dict("records")}
    sums = []
    for row in FRAME.to_dict("records"):
        total = of_output[INTERCEPT]["per_input"]
        for name, middle in (("age", 60.0), ("chol", 350.0)):
            if not np.isnan(row[name]):
                total += of_output[name]["per_unit"] * (row[name] - middle)
        total += of_output["chol missing"]["per_input"] * np.isnan(row["chol"])
        total += of_output[f"sex = {row['sex']}"]["per_input"]
        sums.append(total)
    return sums


LINEAR = [
    lambda: nn.Linear(5, 1),
    lambda: nn.Linear(5, 1, bias=False),
    lambda: nn.Sequential(nn.Flatten(), nn.Linear(5, 1)),
]


@pytest.mark.parametrize("make", LINEAR)
@pytest.mark.parametrize("kind", ["binary", "number"])
def test_an_output_is_the_intercept_and_what_the_columns_add(make: Callable[[], nn.Module], kind: Kind):
    model = model_of(make)
    table = coefficients(model, dict(model.named_parameters()), task(kind))
    outputs = model(torch.from_numpy(encode(FRAME, COLUMNS))).detach().squeeze(1).numpy()
    expected = 30 + 30 * outputs if kind == "number" else outputs
    np.testing.assert_allclose(by_hand(table, 0), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["binary", "number"])
def test_coefficients_of_standardized_inputs_give_the_models_answers(kind: Kind):
    """A scale stands between the columns and the model, and between the model and the outcome."""
    model = model_of(lambda: nn.Linear(5, 1))
    scale = Scale(
        means=np.array([0.3, -0.2, 0.1, 0.5, 0.5]),
        spreads=np.array([0.25, 0.5, 0.3, 0.5, 0.4]),
        flags=np.array([-1, 2, -1, -1, -1]),
        target_mean=-0.4 if kind == "number" else 0.0,
        target_spread=0.05 if kind == "number" else 1.0,
    )
    encoded = torch.from_numpy(encode(FRAME.assign(chol=[100.0, 600.0, 250.0]), COLUMNS))
    outputs = model(scale.inputs(encoded))[:, 0].detach().double().numpy()
    expected = task(kind).range.in_units(scale.encoded_target(outputs)) if kind == "number" else outputs  # type: ignore[union-attr,arg-type]

    table = coefficients(model, dict(model.named_parameters()), task(kind), scale).set_index("input")
    found = []
    for row in FRAME.assign(chol=[100.0, 600.0, 250.0]).to_dict("records"):
        # The intercept is the answer where every input has its mean.
        total = table.loc[INTERCEPT, "per_input"]
        total += table.loc["age", "per_unit"] * (row["age"] - (60 + 0.3 * 40))
        total += table.loc["chol", "per_unit"] * (row["chol"] - (350 - 0.2 * 270))
        total += table.loc["chol missing", "per_input"] * (0 - 0.1)
        for level in ("f", "m"):
            total += table.loc[f"sex = {level}", "per_input"] * ((row["sex"] == level) - 0.5)
        found.append(total)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_differences_of_classes_are_the_models():
    model = model_of(lambda: nn.Linear(5, 3))
    table = coefficients(model, dict(model.named_parameters()), task("classes"))
    outputs = model(torch.from_numpy(encode(FRAME, COLUMNS))).detach().numpy()
    shown = np.array([by_hand(table, output) for output in range(3)]).T
    np.testing.assert_allclose(shown - shown[:, :1], outputs - outputs[:, :1], rtol=1e-4, atol=1e-5)
    assert table.groupby("input")["per_input"].sum().abs().max() < 1e-6


def test_inputs_have_names_and_units_and_marks_have_no_unit():
    model = nn.Linear(5, 1)
    table = coefficients(model, dict(model.named_parameters()), task("binary"))
    assert list(table["input"]) == [INTERCEPT, "age", "chol", "chol missing", "sex = f", "sex = m"]
    assert list(table["unit"]) == ["", "years", "mg/dl", "", "", ""]
    assert list(table["per_unit"].isna()) == [True, False, False, True, True, True]


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 1)),
        lambda: nn.Sequential(nn.Linear(5, 1), nn.Tanh()),
        lambda: nn.Linear(4, 1),  # its inputs are not the columns'
    ],
)
def test_what_is_not_linear_in_the_columns_has_no_coefficients(make: Callable[[], nn.Module]):
    model = make()
    assert coefficients(model, dict(model.named_parameters()), task("binary")).empty


def test_a_module_of_ones_own_is_not_taken_for_linear():
    class Bent(nn.Sequential):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input).relu()

    model = Bent(nn.Linear(5, 1))
    assert coefficients(model, dict(model.named_parameters()), task("binary")).empty
    plain = nn.Linear(5, 1)
    assert coefficients(plain, dict(plain.named_parameters()), task("binary", columns=())).empty
