"""The Flower ClientApp of a site: the same in the simulator and on a real SuperNode.

The server says what to do in the run config: ``scenario`` (JSON), ``seed``, ``arm``, and ``noise-multiplier`` if the
training is to be private. Which site this is, the node config says: ``partition-id``. Under privacy a reply holds the
noisy model, what was done to make it, and a public weight; nothing else.
"""

from dataclasses import dataclass
from functools import lru_cache

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor, nn

from fedsim.evaluation import evaluate as measure
from fedsim.federation import Federation, federate
from fedsim.loading import task_of
from fedsim.losses import RowLosses
from fedsim.metrics import METRICS as MEASURES
from fedsim.records import ARRAYS, CONFIG, MECHANISM, METRICS, ROUND, WEIGHT, Flat, Layout, flatten, from_mechanism
from fedsim.scenario import Scenario
from fedsim.training import (
    Done,
    Streams,
    Work,
    best_device,
    check_rows_are_alone,
    expected_batch,
    losses_of,
    new_model,
    parts_of,
    plan,
)
from fedsim.training import train as train_site


class SiteApp(ClientApp):
    """A ClientApp whose training can be taken in two halves, so that an engine may train many sites in between."""

    def prepare(self, message: Message, context: Context) -> Work:
        """Return what a train message asks of this site.

        Raises:
            PermissionError: The scenario promises privacy and the server asks for none.
        """
        config = context.run_config
        setting = _setting(str(config["scenario"]), int(config["seed"]))
        noise = float(config["noise-multiplier"]) if "noise-multiplier" in config else None
        if setting.scenario.private and noise is None:
            raise PermissionError("the scenario promises privacy, and no noise was asked for")
        site = setting.federation.sites[int(context.node_config["partition-id"])]
        round_number = int(message.content[CONFIG][ROUND])  # type: ignore[arg-type]
        return Work(
            model=setting.model,
            start=_start(message, setting),
            examples=site.train,
            plan=plan(setting.scenario, expected_batch(setting.scenario, site.name), noise),
            streams=Streams.of(setting.scenario, int(config["seed"]), str(config["arm"]), site.name, round_number),
            losses=setting.losses,
        )

    def answer(self, message: Message, work: Work, done: Done) -> Message:
        """Return the reply that sends the trained model back."""
        content = RecordDict()
        content[ARRAYS] = Flat(done.parameters, Layout.of(work.model))
        content[METRICS] = _weight(work.plan.expected_batch).copy()
        if done.mechanism:
            content[MECHANISM] = from_mechanism(done.mechanism)
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
    config = context.run_config
    if "noise-multiplier" in config:
        raise PermissionError("metrics of a site would be a release without noise")
    setting = _setting(str(config["scenario"]), int(config["seed"]))
    site = setting.federation.sites[int(context.node_config["partition-id"])]
    parameters = parts_of(setting.model, _start(message, setting))
    task, alone = task_of(setting.scenario), Federation((site,))
    table = measure(setting.model, {site.name: parameters}, alone, "validation", task.kind, False, task.range)
    found = {metric.name: table[metric.name][0] for metric in MEASURES[task.kind]}
    figures = {name: float(value) for name, value in found.items() if value is not None}
    metrics = MetricRecord({WEIGHT: max(1, len(site.validation)), **figures})
    return Message(RecordDict({METRICS: metrics}), reply_to=message)


@dataclass(frozen=True)
class _Setting:
    """What all sites of a run have in common."""

    scenario: Scenario
    federation: Federation
    model: nn.Module
    layout: Layout
    losses: RowLosses
    device: str


@lru_cache(maxsize=4)
def _setting(text: str, seed: int) -> _Setting:
    scenario = Scenario.model_validate_json(text)
    device = best_device(scenario.device)
    federation = federate(scenario, seed, device)
    model = new_model(scenario, federation.sites[0], seed, device)
    if scenario.private:
        check_rows_are_alone(model, federation.sites[0].train)
    return _Setting(scenario, federation, model, Layout.of(model), losses_of(scenario), device)


def _start(message: Message, setting: _Setting) -> Tensor:
    """Return the parameters that came, in the order of the model's.

    Raises:
        ValueError: They are not the model's.
    """
    arrays = message.content[ARRAYS]
    if not isinstance(arrays, ArrayRecord):
        raise ValueError(f"expected an ArrayRecord, got {type(arrays).__name__}")
    if not isinstance(arrays, Flat) or arrays.layout is not setting.layout:
        got = {name: tuple(array.shape) for name, array in arrays.items()}
        if Layout.made(got) != setting.layout:
            raise ValueError(f"expected the parameters {setting.layout.shapes}, got {got}")
    return flatten(arrays).to(setting.device)


@lru_cache(maxsize=256)
def _weight(expected_batch: float) -> MetricRecord:
    return MetricRecord({WEIGHT: expected_batch})
