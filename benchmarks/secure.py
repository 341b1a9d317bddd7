"""What a round of secure aggregation costs in seconds of CPU time: one site, and the server if a tenth drops out."""

import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from fedsim.privacy.secure_aggregation import Party, Terms, unmasked_sum

T = TypeVar("T")


def measure(sites: int, params: int) -> tuple[float, float]:
    """Return the seconds of a site (the mean over all) and of the server."""
    spent = {"site": 0.0, "server": 0.0}

    def timed(who: str, do: Callable[[], T]) -> T:
        clock = time.process_time()
        found = do()
        spent[who] += time.process_time() - clock
        return found

    terms = Terms(1, sites, 2 * sites // 3 + 1)
    everyone = range(1, sites + 1)
    parties = {site: timed("site", lambda site=site: Party(site, terms)) for site in everyone}
    keys = {site: timed("site", party.advertise) for site, party in parties.items()}
    sent = {site: timed("site", lambda party=party: party.share(keys)) for site, party in parties.items()}
    values = np.zeros(params, np.uint64)
    answered = everyone[: sites - sites // 10]
    masked = {}
    for site in answered:
        shares = {other: sent[other][site] for other in everyone if other != site}
        masked[site] = timed("site", lambda site=site, shares=shares: parties[site].mask(values, shares))
    told = {site: timed("site", lambda site=site: parties[site].unmask(answered)) for site in answered}
    total = timed("server", lambda: unmasked_sum(terms, keys, masked, told))
    if total.any():
        raise AssertionError("expected the sum of zeros")
    return spent["site"] / sites, spent["server"]


if __name__ == "__main__":
    print(f"{'sites':>5} {'parameters':>10} {'one site, s':>12} {'server, s':>10}")
    for sites, params in [(10, 10**4), (10, 10**5), (10, 10**6), (100, 10**4), (100, 10**5), (100, 10**6)]:
        site, server = measure(sites, params)
        print(f"{sites:5} {params:10} {site:12.3f} {server:10.3f}", flush=True)
