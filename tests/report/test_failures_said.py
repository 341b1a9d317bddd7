"""A report that lacks trainings says which, and why: a sentence for each reason, and not too many."""

from dataclasses import replace
from pathlib import Path

from fedsim.report.failures import failures
from tests.runs import make_run


def failed(seed: int, reason: str) -> dict[str, object]:
    return {"arm": "local", "private": False, "seed": seed, "reason": reason}


def said(*failures_of_run: dict[str, object]) -> list[str]:
    run = make_run(Path("never-written"))
    return failures(replace(run, manifest={**run.manifest, "failed": list(failures_of_run)}))


def test_trainings_with_one_reason_share_a_sentence():
    other = {**failed(4, "no site answered"), "arm": "centralized", "private": True}
    (sentence,) = said(failed(0, "no site answered"), failed(1, "no site answered"), other)
    assert sentence == (
        "Failed, and not in these figures: local, without privacy, seeds 0, 1; centralized, with privacy, seed 4. "
        "The reason: no site answered"
    )


def test_of_many_reasons_five_are_said_and_the_others_counted():
    sentences = said(*(failed(seed, f"reason {seed}") for seed in range(8)))
    assert len(sentences) == 6
    assert sentences[-1] == "3 more reasons of trainings that failed are in manifest.json."
