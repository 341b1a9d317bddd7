#!/usr/bin/env bash
# All that is asked of a GPU, in one go of at most eight minutes: does the stack on it equal single sites on a CPU, and how long does a round take
# beside pfl-research (with one process and with five) and Flower on Ray, on the same card.
#
#   bash benchmarks/gpu.sh --collect               on a machine with a package index: fetch what the other one lacks into benchmarks/wheels
#   bash benchmarks/gpu.sh                         on a machine with a GPU and torch; nothing is fetched if benchmarks/wheels is there
#   bash benchmarks/gpu.sh --device cpu --rounds 1 --workloads tabular      try it without a GPU
#
# Figures go to benchmarks/results/gpu.json as they are found, those of a CPU to gpu_cpu_rehearsal.json. What can't be had is left out, and that is said.
# TARGET_PYTHON (3.12) is the Python of the other machine.
set -euo pipefail
cd "$(dirname "$0")/.."
wheels=benchmarks/wheels
target_python=${TARGET_PYTHON:-3.12}
seconds=480               # for all of it
seconds_to_install=90     # for one environment
seconds_to_end=10
platforms=(manylinux_2_34_x86_64 manylinux_2_31_x86_64 manylinux_2_28_x86_64 manylinux_2_27_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64)
unused_of_ray=(jars rllib cpp tune serve train llm data dashboard/client)   # two thirds of it; the simulation imports none of them

collect() {
    local of_platforms=() platform who
    for platform in "${platforms[@]}"; do
        of_platforms+=(--platform "$platform")
    done
    rm -rf "$wheels"
    # Without torch and what it brings: a machine with a GPU has its own.
    for who in fedsim pfl ray; do
        mkdir -p "$wheels/$who"
        python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --implementation cp \
            --python-version "$target_python" "${of_platforms[@]}" -d "$wheels/$who" -r "benchmarks/peers/gpu_$who.txt"
    done
    slim_ray "$wheels"/ray/ray-*.whl
    du -sh "$wheels"
}

# Ray's wheel is larger than all the others together: what is used of it, packed tightly.
slim_ray() { # WHEEL
    local unpacked part
    unpacked=$(mktemp -d)
    python3 -m zipfile -e "$1" "$unpacked"
    for part in "${unused_of_ray[@]}"; do
        rm -rf "$unpacked/ray/$part"
    done
    chmod +x "$unpacked"/ray/core/src/ray/{raylet/raylet,gcs/gcs_server}   # Python's zipfile forgets it
    ! command -v strip > /dev/null || strip --strip-unneeded "$unpacked"/ray/_raylet.so "$unpacked"/ray/core/src/ray/{raylet/raylet,gcs/gcs_server}
    tar -C "$unpacked" -cJf "$wheels/ray/ray.tar.xz" .
    rm -rf "$unpacked" "$1"
}

# An environment over the machine's own packages, torch above all. One that is there already is taken as it is, unless it is one of these, and half made.
environment() { # DIRECTORY REQUIREMENTS-OF-AN-INDEX WHEELS...
    local directory=$1 requirements=$2 who
    shift 2
    [ ! -e "$directory" ] || [ -f "$directory/unfinished" ] || return 0
    python3 -m venv --without-pip --clear "$directory" || { rm -rf "$directory"; return 1; }
    touch "$directory/unfinished"
    see_the_machine "$directory/bin/python" || return 1
    if [ -d "$wheels" ]; then
        for who in "$@"; do
            into "$directory" --no-index --no-deps "$wheels/$who"/*.whl || return 1
            [ ! -f "$wheels/$who/ray.tar.xz" ] || tar -C "$(place_of "$directory/bin/python")" -xJf "$wheels/$who/ray.tar.xz" || return 1
        done
    elif [ -n "$requirements" ]; then
        grep -v '^torch' "$requirements" > "$directory/requirements.txt"
        into "$directory" -r "$directory/requirements.txt" || return 1
    fi
    mv "$directory/unfinished" "$directory/installed"
}

into() { # DIRECTORY WHAT...
    local directory=$1
    shift
    timeout --kill-after 5 "$seconds_to_install" python3 -m pip --python "$directory/bin/python" install \
        --quiet --no-compile --disable-pip-version-check --root-user-action ignore "$@"
}

place_of() { # PYTHON
    "$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
}

# The option --system-site-packages shows those of the system's Python only, and python3 may be that of an environment itself.
see_the_machine() { # PYTHON
    local place
    place=$(place_of "$1") || return 1
    python3 -c 'import sys; print("\n".join(path for path in sys.path if path.endswith("-packages")))' > "$place/the_machine.pth"
}

if [ "${1:-}" = --collect ]; then
    collect
    exit
fi

# Without fedsim there is nothing to measure.
environment .venv "" fedsim || { echo "fedsim's environment can't be made, or not in ${seconds_to_install} s"; exit 1; }
if ! .venv/bin/python -c 'import importlib.metadata as found; found.version("fedsim-flower")' 2> /dev/null; then
    if [ -d "$wheels" ]; then
        into .venv --no-index --no-deps --no-build-isolation .
    else
        into .venv .
    fi
fi
environment benchmarks/.venv-pfl benchmarks/peers/pfl.txt pfl || echo "left out: pfl, its environment can't be made"
environment benchmarks/.venv-ray benchmarks/peers/flower_ray.txt fedsim ray || echo "left out: Flower on Ray, its environment can't be made"
for peer in pfl ray; do
    [ ! -f "benchmarks/.venv-$peer/unfinished" ] || rm -f "benchmarks/.venv-$peer/bin/python"   # half an environment is none
done
echo "environments: ${SECONDS} s"
export PYTHONPATH=$PWD FLWR_TELEMETRY_ENABLED=0
exec timeout --signal INT --kill-after 5 $((seconds - SECONDS)) \
    .venv/bin/python benchmarks/gpu.py --seconds $((seconds - SECONDS - seconds_to_end)) "$@"
