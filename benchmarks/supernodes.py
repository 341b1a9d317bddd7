"""What messages to real sites cost the server, for 1 to 1000 sites, and how long a site's process takes to start.

Messages and replies go through Flower's own bytes, with a model of 10 000 and of 1 000 000 parameters; nobody trains.
So the server's part of a round is measured: seconds and bytes for each site, and memory. What a site adds, it adds on
its own machine: a process for each message, of which the imports are measured. From these figures docs/at-scale.md has
a model of a round at many sites.

    python benchmarks/supernodes.py [--most 1000]
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from torch import nn

from fedsim.flower.grid import OF_A_SIMULATION, InProcessGrid, node_of
from fedsim.flower.real_grid import SITE, WHO, RealGrid
from fedsim.flower.records import ARRAYS, CONFIG, METRICS, ROUND, WEIGHT, Flat, Layout, flatten

PARAMETERS = (10_000, 1_000_000)
SITES = (1, 10, 100, 1000)
_IMPORTS = "import fedsim.site.real"


class Echoes(InProcessGrid):
    """Nodes that send the model back; what is sent and what comes goes through bytes, which are counted."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(lambda messages, contexts: [], len(names), {})
        self.names = names
        self.bytes = 0

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Return the replies."""
        replies = []
        for number, message in enumerate(messages):
            message.metadata.__dict__["_message_id"] = f"m{number}"
            if message.metadata.message_type == f"query.{WHO}":
                name = self.names[message.metadata.dst_node_id - node_of(0)]
                replies.append(Message(RecordDict({SITE: ConfigRecord({SITE: name})}), reply_to=message))
                continue
            came = self._through(message)
            content = RecordDict({ARRAYS: came.content[ARRAYS], METRICS: MetricRecord({WEIGHT: 1.0})})
            replies.append(self._through(Message(content, reply_to=came)))
        return replies

    def _through(self, message: Message) -> Message:
        written = message_to_proto(message).SerializeToString()
        self.bytes += len(written)
        return message_from_proto(type(message_to_proto(message)).FromString(written))


def main() -> None:
    """Measure each size in a process of its own, since memory is not given back."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=SITES[-1])
    parser.add_argument("--one", nargs=2, type=int, metavar=("SITES", "PARAMETERS"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        sys.stdout.write(json.dumps(measured(*asked.one)))
        return

    rows = []
    for parameters in PARAMETERS:
        for sites in SITES:
            if sites <= asked.most:
                words = [sys.executable, __file__, "--one", str(sites), str(parameters)]
                ended = subprocess.run(words, check=True, capture_output=True, text=True)
                rows.append(json.loads(ended.stdout))
                sys.stderr.write(f"{rows[-1]}\n")
    found = {"rounds": rows, "seconds_to_start_a_site": start()}
    text = json.dumps(found, indent=2) + "\n"
    (Path(__file__).parent / "results" / "supernodes.json").write_text(text)
    sys.stdout.write(text)


def measured(sites: int, parameters: int) -> dict[str, float]:
    """Time three rounds of messages; return the last one's figures."""
    torch.set_num_threads(1)
    names = [f"site {number}" for number in range(sites)]
    model = nn.Linear(parameters, 1, bias=False)
    layout = Layout.of(model)
    start = torch.zeros(parameters)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with OF_A_SIMULATION.taken():
        echoes = Echoes(names)
        grid = RealGrid(echoes, OF_A_SIMULATION, names, {"training": "x" * 32, "scenario": "y" * 4000}, None, 1, 1)
        for number in (1, 2, 3):
            echoes.bytes = 0
            begun = time.perf_counter()
            content = RecordDict({ARRAYS: Flat(start, layout), CONFIG: ConfigRecord({ROUND: number})})
            replies = list(grid.send_and_receive([Message(content, node, "train") for node in grid.get_node_ids()]))
            total = sum(flatten(arrays_in(reply)) for reply in replies)
            seconds = time.perf_counter() - begun
    del total
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "sites": sites,
        "parameters": parameters,
        "seconds_a_round": round(seconds, 4),
        "milliseconds_a_site": round(1000 * seconds / sites, 3),
        "megabytes_a_site": round(echoes.bytes / sites / 1e6, 3),
        "gibibytes_more": round((peak - before) / 2**20, 3),
    }


def arrays_in(reply: Message) -> ArrayRecord:
    """Return the model in a reply."""
    arrays = reply.content[ARRAYS]
    assert isinstance(arrays, ArrayRecord)
    return arrays


def start() -> float:
    """Return the median seconds that a site's process needs for its imports."""
    taken = []
    for _ in range(5):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", _IMPORTS], check=True)
        taken.append(time.perf_counter() - begun)
    return round(statistics.median(taken), 2)


if __name__ == "__main__":
    main()
