"""Nothing is said to an officer that the statement does not carry."""

from pathlib import Path

from fedsim.report.deciding import officer
from tests.runs import make_run, nothing_released


def test_no_model_leaves_whose_noise_follows_from_a_seed(tmp_path: Path) -> None:
    rows = officer.models(make_run(tmp_path))
    assert {row.answer for row in rows} == {officer.NO}
    federated = next(row for row in rows if row.models.startswith("federated"))
    assert "seed" in federated.why
    assert "epsilon 8.00 for one record" in federated.why


def test_secret_noise_lets_a_private_model_leave_under_conditions_and_no_plain_one(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    for training in run.ledger["trainings"]:
        for entry in training["entries"]:
            entry["mechanism"]["rng"] = "secure"
    answers = {row.models: row.answer for row in officer.models(run)}
    assert answers["federated model with privacy"] == officer.UNDER_CONDITIONS
    assert answers["models without privacy (centralized, federated, local)"] == officer.NO
    run.ledger["ranges_fitted"] = True
    assert {row.answer for row in officer.models(run)} == {officer.NO}


def test_without_privacy_nothing_is_promised(tmp_path: Path) -> None:
    run = make_run(tmp_path, private=False)
    assert not [line for line in officer.may_be_said(run) if "epsilon" in line.lower()]
    assert {row.answer for row in officer.models(run)} == {officer.NO}


def test_where_nothing_was_released_nothing_is_said_of_a_model(tmp_path: Path) -> None:
    assert "Nothing was released" in officer.may_be_said(nothing_released(make_run(tmp_path)))[0]
