"""The ClientApp of a node that several simulated sites are shared out to; see ``fedsim.flower.nodes``.

It is what Ray's actors run, and the SuperNodes of a rehearsal. It keeps nothing from one bundle to the next but what
follows from the scenario: data, model and rules.
"""

import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedsim import engines
from fedsim.engines import cohort
from fedsim.flower.bundles import pack_replies, unpack_messages
from fedsim.flower.grid import OF_A_SIMULATION
from fedsim.flower.nodes import BUNDLE
from fedsim.scenario import catalog
from fedsim.site.app import SiteApp

app = ClientApp()
_sites = SiteApp()


@app.query(BUNDLE)
def answer(message: Message, context: Context) -> Message:
    """Answer for all sites whose messages are in a bundle."""
    torch.set_num_threads(1)  # the number of threads changes the order of sums, so the last bits
    told = message.content[BUNDLE]
    for name in told["strategies"]:  # type: ignore[union-attr]  a list of texts
        catalog.allow(str(name))
    engine = engines.load(str(told["engine"]))
    size = told["cohort-size"]
    with OF_A_SIMULATION.taken(), cohort.cut_for(int(told["cores"])):  # type: ignore[arg-type]
        messages, contexts = unpack_messages(bytes(told["bundle"]))  # type: ignore[arg-type]
        replies = engine.execute(_sites, size if isinstance(size, int) else "auto")(messages, contexts)
        packed = pack_replies(replies, contexts)
    return Message(RecordDict({BUNDLE: ConfigRecord({"bundle": packed})}), reply_to=message)
