"""Complete a scenario, before it is run, by all that its table decides."""

from fedsim.data.base_weights import base_digest
from fedsim.data.federation import sites_of
from fedsim.data.loading import digest_of_rows, has_digest_of_rows, prepared_of, rows_of
from fedsim.data.own_table import prepared
from fedsim.mistakes import Mistake
from fedsim.scenario.schema import Data, Scenario

_LARGEST_BATCH = 64.0
_ALL_SITES_BATCHES = 320.0  # five sites of the largest


def settled(scenario: Scenario) -> Scenario:
    """Complete a scenario so that it means the same later and elsewhere.

    Base weights get the digest of their file, as rows do.

    Raises:
        Mistake: A file is not there, or can't be made into a task; or it is not the one with the digest that is given.
    """
    return _with_digest_of_base(_with_digest_of_rows(scenario))


def _with_digest_of_base(scenario: Scenario) -> Scenario:
    adapt = scenario.training.adapt
    if adapt is None or adapt.base is None:
        return scenario
    known = adapt.model_copy(update={"base_sha256": base_digest(adapt)})
    return scenario.model_copy(update={"training": scenario.training.model_copy(update={"adapt": known})})


def _with_digest_of_rows(scenario: Scenario) -> Scenario:
    """Complete what a scenario says of its rows.

    It gets the digest of its file, or of the rows of a task of the user's own, all ranges and, where
    it trains on a table without privacy and says nothing of it, the denominator of the sites' steps.

    Raises:
        Mistake: Its file is not there, or can't be made into a task; the message names the file of
            ranges.
    """
    if has_digest_of_rows(scenario):
        rows_of(scenario)  # checks a digest that it has already
        data = scenario.data.model_copy(update={"sha256": digest_of_rows(scenario)})
        return scenario.model_copy(update={"data": data})
    if not scenario.data.path:
        return scenario

    fixed = scenario.model_copy(update={"data": _settled_data(scenario)})
    if scenario.task is None and not scenario.private:
        return _with_expected_batch(fixed)
    return fixed


def _settled_data(scenario: Scenario) -> Data:
    try:
        data = prepared.settled(scenario.data)
        if scenario.task is None:
            prepared_of(data)
    except Mistake:
        # The fault is told in the words of the scenario, with the path as it was typed.
        if scenario.task is None:
            prepared.prepare(scenario.data)
        raise
    return data


def _with_expected_batch(scenario: Scenario) -> Scenario:
    """Give the sites' steps their denominator by the number of sites, which is public.

    Adam's steps don't depend on the denominator, but what the weight decay counts does. An average
    over sites leaves a decay of ``weight_decay * expected_batch * sites / sampling_rate`` against
    the sum of all rows' losses. For up to five sites that is what the default was chosen with. With
    2000 sites of five rows, the same denominator would let the decay outweigh all rows.
    """
    if "expected_batch" in scenario.training.model_fields_set:
        return scenario
    batch = min(_LARGEST_BATCH, max(1.0, _ALL_SITES_BATCHES / len(sites_of(scenario))))
    training = scenario.training.model_copy(update={"expected_batch": batch})
    return scenario.model_copy(update={"training": training})
