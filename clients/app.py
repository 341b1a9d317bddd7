"""The Flower ClientApp of a site: the same in the simulator and on a real SuperNode.

The server says what to do in the run config: ``scenario`` (JSON), ``seed``, ``arm``, and ``noise-multiplier`` if the
training is to be private. Which site this is, the node config says: ``partition-id``. Under privacy a reply holds the
noisy model, what was done to make it, and a public weight; nothing else.
"""

import copy
from functools import lru_cache

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from fedsim.evaluation import METRICS as MEASURES
from fedsim.evaluation import evaluate as measure
from fedsim.federation import Federation, Site, federate
from fedsim.privacy.ledger import Mechanism
from fedsim.records import ARRAYS, CONFIG, MECHANISM, METRICS, ROUND, WEIGHT, from_mechanism, load_into, to_arrays
from fedsim.scenario import Scenario
from fedsim.training import Streams, Work, best_device, check_rows_are_alone, expected_batches, new_model, plan
from fedsim.training import train as train_site


class SiteApp(ClientApp):
    """A ClientApp whose training can be taken in two halves, so that an engine may train many sites in between."""

    def prepare(self, message: Message, context: Context) -> Work:
        """Return what a train message asks of this site.

        Raises:
            PermissionError: The scenario promises privacy and the server asks for none.
        """
        config = context.run_config
        scenario, federation, site, model = _setting(context, message)
        noise = float(config["noise-multiplier"]) if "noise-multiplier" in config else None
        if scenario.private and noise is None:
            raise PermissionError("the scenario promises privacy, and no noise was asked for")
        round_number = int(message.content.config_records[CONFIG][ROUND])  # type: ignore[arg-type]
        return Work(
            model=model,
            examples=site.train,
            plan=plan(scenario, expected_batches(scenario, federation)[site.name], noise),
            streams=Streams.of(scenario, int(config["seed"]), str(config["arm"]), site.name, round_number),
        )

    def answer(self, message: Message, work: Work, mechanism: Mechanism | None) -> Message:
        """Return the reply that sends the trained model back."""
        arrays, weight = to_arrays(dict(work.model.named_parameters())), work.plan.expected_batch
        content = RecordDict({ARRAYS: arrays, METRICS: MetricRecord({WEIGHT: weight})})
        if mechanism:
            content[MECHANISM] = from_mechanism(mechanism)
        return Message(content, reply_to=message)


app = SiteApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the model that came and send it back."""
    work = app.prepare(message, context)
    return app.answer(message, work, train_site(work))


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Measure the model that came on this site's validation rows.

    Raises:
        PermissionError: Training is private here, and these figures would leave without noise.
    """
    if "noise-multiplier" in context.run_config:
        raise PermissionError("metrics of a site would be a release without noise")
    _, _, site, model = _setting(context, message)
    table = measure(model, {site.name: dict(model.named_parameters())}, Federation((site,)), "validation", sites=False)
    figures = {name: float(table[name][0]) for name in MEASURES if table[name].notna().all()}
    metrics = MetricRecord({WEIGHT: max(1, len(site.validation)), **figures})
    return Message(RecordDict({METRICS: metrics}), reply_to=message)


def _setting(context: Context, message: Message) -> tuple[Scenario, Federation, Site, nn.Module]:
    """Return the scenario, the federation, this site in it, and the model that came."""
    scenario = _scenario(str(context.run_config["scenario"]))
    seed, device = int(context.run_config["seed"]), best_device(scenario.device)
    federation = federate(scenario, seed, device)
    site = federation.sites[int(context.node_config["partition-id"])]
    model = copy.deepcopy(_blank_model(str(context.run_config["scenario"]), seed, device))
    load_into(model, message.content.array_records[ARRAYS])
    return scenario, federation, site, model


@lru_cache(maxsize=8)
def _blank_model(scenario: str, seed: int, device: str) -> nn.Module:
    parsed = _scenario(scenario)
    site = federate(parsed, seed, device).sites[0]
    model = new_model(parsed, site, seed, device)
    if parsed.private:
        check_rows_are_alone(model, site.train)
    return model


@lru_cache(maxsize=8)
def _scenario(text: str) -> Scenario:
    return Scenario.model_validate_json(text)
