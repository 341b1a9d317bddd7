"""Rounds of a workload in DrJAX 0.2.1, which maps a round's clients in one program of JAX and takes their mean.

The sampled sites' rows are stacked, each site's rows are put in an order of their own, and every site takes its steps
on batches of a fixed size, all inside one compiled program. The models are those of the workloads, written as functions
with the same layers, sizes and first weights' scale. No evaluation; the compilation is in the warm-up round.
"""

import os
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import itertools

from workloads import Workload, age, read_arguments, result_line, rows_of

Parameters = dict[str, Any]


def main() -> None:
    """Measure and print one line."""
    arguments = read_arguments(__doc__.partition("\n")[0])
    if arguments.private:
        print("DrJAX 0.2.1 has no record-level DP-SGD for local training", file=sys.stderr)
        sys.exit(3)
    threads = arguments.threads
    os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}"
    os.environ["JAX_PLATFORMS"] = arguments.device
    if arguments.device == "cpu":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])  # XLA takes a thread for each core
    print(result_line("drjax", arguments, run_rounds(arguments), ("drjax", "jax")))


def run_rounds(arguments: Namespace) -> list[float]:
    """Run a warm-up round and the measured ones; return the process's age at the end of each."""
    import drjax
    import jax
    import numpy as np
    from jax import numpy as jnp

    workload = arguments.workload
    shapes, apply = MODELS[workload.name]()
    key = jax.random.key(0)
    parameters = {}
    for name, shape in shapes.items():
        key, own = jax.random.split(key)
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else shape[0]
        parameters[name] = jax.random.uniform(own, shape, minval=-1, maxval=1) / np.sqrt(fan_in)

    of_sites = [rows_of(workload, site) for site in range(workload.sites)]
    x = jnp.asarray(np.stack([inputs.numpy() for inputs, _ in of_sites]))  # (sites, rows, ...)
    y = jnp.asarray(np.stack([labels.numpy() for _, labels in of_sites]).astype(np.int32))

    def loss(values: Parameters, inputs: Any, labels: Any) -> Any:
        logits = apply(values, inputs)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean()

    def train(values: Parameters, inputs: Any, labels: Any, own: Any) -> Parameters:
        order = jax.random.permutation(own, workload.rows)[: workload.steps * workload.batch]
        batches = order.reshape(workload.steps, workload.batch)

        def step(now: Parameters, batch: Any) -> tuple[Parameters, None]:
            gradients = jax.grad(loss)(now, inputs[batch], labels[batch])
            return jax.tree.map(lambda value, change: value - workload.lr * change, now, gradients), None

        return jax.lax.scan(step, values, batches)[0]

    @drjax.program(placements={"clients": workload.sampled})
    def one_round(values: Parameters, inputs: Any, labels: Any, keys: Any) -> Parameters:
        sent = drjax.broadcast(values)
        return drjax.reduce_mean(drjax.map_fn(train, (sent, inputs, labels, keys)))

    @jax.jit
    def whole(values: Parameters, own: Any) -> Parameters:
        chosen = jax.random.permutation(own, workload.sites)[: workload.sampled]
        return one_round(values, x[chosen], y[chosen], jax.random.split(own, workload.sampled))

    ages = []
    for _ in range(arguments.rounds + 1):
        key, own = jax.random.split(key)
        parameters = jax.block_until_ready(whole(parameters, own))
        ages.append(age())
    return ages


def mlp() -> tuple[dict[str, tuple[int, ...]], Callable[[Parameters, Any], Any]]:
    """Return the shapes of the MLP's parameters, and the function from them and rows to logits."""
    sizes = (30, 64, 64, 2)
    shapes = {}
    for number, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        shapes |= {f"w{number}": (fan_out, fan_in), f"b{number}": (fan_out,)}

    def apply(values: Parameters, rows: Any) -> Any:
        import jax

        for number in range(3):
            rows = rows @ values[f"w{number}"].T + values[f"b{number}"]
            rows = jax.nn.relu(rows) if number < 2 else rows
        return rows

    return shapes, apply


def convolved(values: Parameters, name: str, rows: Any) -> Any:
    """Convolve and rectify (rows, channels, height, width)."""
    import jax

    found = jax.lax.conv_general_dilated(
        rows, values[f"w{name}"], (1, 1), "VALID", dimension_numbers=("NCHW", "OIHW", "NCHW")
    )
    return jax.nn.relu(found + values[f"b{name}"][:, None, None])


def pooled(rows: Any) -> Any:
    """Return the maxima of windows of 2 x 2."""
    import jax
    from jax import numpy as jnp

    return jax.lax.reduce_window(rows, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")


def dense(values: Parameters, name: str, rows: Any, last: bool = False) -> Any:
    """Return a dense layer's outputs, rectified unless it is the last."""
    import jax

    found = rows @ values[f"w{name}"].T + values[f"b{name}"]
    return found if last else jax.nn.relu(found)


def lenet() -> tuple[dict[str, tuple[int, ...]], Callable[[Parameters, Any], Any]]:
    """Return the same of the LeNet-like network."""
    shapes = {"wa": (6, 3, 5, 5), "ba": (6,), "wb": (16, 6, 5, 5), "bb": (16,), "wc": (120, 400), "bc": (120,),
              "wd": (84, 120), "bd": (84,), "we": (10, 84), "be": (10,)}  # fmt: skip

    def apply(values: Parameters, rows: Any) -> Any:
        rows = pooled(convolved(values, "a", rows))
        rows = pooled(convolved(values, "b", rows)).reshape(len(rows), -1)
        return dense(values, "e", dense(values, "d", dense(values, "c", rows)), last=True)

    return shapes, apply


def cnn() -> tuple[dict[str, tuple[int, ...]], Callable[[Parameters, Any], Any]]:
    """Return the same of the network for CIFAR."""
    shapes = {"wa": (32, 3, 3, 3), "ba": (32,), "wb": (64, 32, 3, 3), "bb": (64,), "wc": (128, 64 * 14 * 14),
              "bc": (128,), "wd": (10, 128), "bd": (10,)}  # fmt: skip

    def apply(values: Parameters, rows: Any) -> Any:
        rows = pooled(convolved(values, "b", convolved(values, "a", rows))).reshape(len(rows), -1)
        return dense(values, "d", dense(values, "c", rows), last=True)

    return shapes, apply


def gru() -> tuple[dict[str, tuple[int, ...]], Callable[[Parameters, Any], Any]]:
    """Return the same of the recurrent model, whose cell is PyTorch's."""
    shapes = {"wi": (96, 8), "bi": (96,), "wh": (96, 32), "bh": (96,), "wr": (2, 32), "br": (2,)}

    def apply(values: Parameters, rows: Any) -> Any:
        import jax
        from jax import numpy as jnp

        def cell(state: Any, now: Any) -> tuple[Any, None]:
            reset, update, new = jnp.split(now @ values["wi"].T + values["bi"], 3, axis=1)
            own_reset, own_update, own_new = jnp.split(state @ values["wh"].T + values["bh"], 3, axis=1)
            kept = jax.nn.sigmoid(update + own_update)
            candidate = jnp.tanh(new + jax.nn.sigmoid(reset + own_reset) * own_new)
            return (1 - kept) * candidate + kept * state, None

        state, _ = jax.lax.scan(cell, jnp.zeros((len(rows), 32)), rows.swapaxes(0, 1))
        return dense(values, "r", state, last=True)

    return shapes, apply


MODELS = {"tabular": mlp, "small": lenet, "cifar": cnn, "sequence": gru}


def counts(workload: Workload) -> tuple[int, int]:
    """Return how many numbers the workload's model learns, in PyTorch and here."""
    import math

    from workloads import count_parameters

    shapes, _ = MODELS[workload.name]()
    return count_parameters(workload.model()), sum(math.prod(shape) for shape in shapes.values())


if __name__ == "__main__":
    main()
