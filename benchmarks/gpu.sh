#!/usr/bin/env bash
# All that is asked of a GPU, in one go of at most eight minutes: does the stack on it equal single sites on a CPU, and how long does a round take
# beside pfl-research (with one process and with five) and Flower on Ray, on the same card.
#
#   bash benchmarks/gpu.sh --collect               on a machine with a package index: fetch the wheels that the other one lacks
#   bash benchmarks/gpu.sh                         on a machine with a GPU and torch, with or without an index
#   bash benchmarks/gpu.sh --device cpu --rounds 1 --workloads tabular      try it without a GPU
#
# Figures go to benchmarks/results/gpu.json. A peer whose environment can't be made is left out, and that is said.
set -euo pipefail
cd "$(dirname "$0")/.."
wheels=benchmarks/wheels
target_python=${TARGET_PYTHON:-3.12}
platforms=(manylinux_2_34_x86_64 manylinux_2_31_x86_64 manylinux_2_28_x86_64 manylinux_2_27_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64)

if [ "${1:-}" = --collect ]; then
    of_platforms=()
    for platform in "${platforms[@]}"; do
        of_platforms+=(--platform "$platform")
    done
    # Without torch and what it brings: a machine with a GPU has its own.
    for who in fedsim pfl; do
        mkdir -p "$wheels/$who"
        python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --implementation cp \
            --python-version "$target_python" "${of_platforms[@]}" -d "$wheels/$who" -r "benchmarks/peers/gpu_$who.txt"
    done
    du -sh "$wheels"
    exit
fi

# An environment for each, over the machine's own torch.
environment() { # DIRECTORY WHO
    [ -x "$1/bin/python" ] && return
    python3 -m venv --system-site-packages "$1"
    if [ -d "$wheels/$2" ]; then
        "$1/bin/pip" install --quiet --disable-pip-version-check --no-index --no-deps "$wheels/$2"/*.whl
        [ "$2" != fedsim ] || "$1/bin/pip" install --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation .
    elif [ "$2" = fedsim ]; then
        "$1/bin/pip" install --quiet --disable-pip-version-check .
    else
        "$1/bin/pip" install --quiet --disable-pip-version-check -r "benchmarks/peers/$2.txt"
    fi
}

environment .venv fedsim
environment benchmarks/.venv-pfl pfl || echo "pfl: left out, its environment can't be made"
environment benchmarks/.venv-ray flower_ray || echo "flower ray: left out, its environment can't be made"
export PYTHONPATH=$PWD FLWR_TELEMETRY_ENABLED=0
exec .venv/bin/python benchmarks/gpu.py "$@"
