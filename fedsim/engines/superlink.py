"""The superlink engine shares the sites of a round out among SuperNodes of Flower's, on this machine.

It is a rehearsal of a federation of several machines. A SuperNode trains its sites one after another or as a stack, as
``superlink.inside`` says. The arms without rounds are trained in this process, by the same engine.
"""

from fedsim.engines.ray import execute, train_all

__all__ = ["execute", "train_all"]
