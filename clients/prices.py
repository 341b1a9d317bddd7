"""Daily prices into windows of days and the volatility that follows them."""

import numpy as np
import pandas as pd

from fedsim.data import Column, Number, encode

WINDOW = 20  # trading days a prediction looks back
AHEAD = 5  # trading days it looks ahead
DAYS: tuple[Column, ...] = (
    Number("change", -0.25, 0.25, "log return of the day"),
    Number("log_change", -4, -0.5, "power of ten, its size"),
    Number("log_swing", -3, -0.5, "power of ten, log of the day's highest over its lowest price"),
    Number("log_volume", -1, 1, "power of ten, shares traded over the mean of the 20 days before"),
)


def describe(prices: pd.DataFrame) -> pd.DataFrame:
    """Return what is known of each day of one stock when it ends, and what follows.

    Only ratios of prices and volumes a few days apart enter, never their levels: those hold later splits and dividends
    (``Adj Close`` is corrected backwards) and give away the date.

    Args:
        prices: The days of one stock, oldest first: High, Low, Adj Close, Volume.

    Returns:
        For each day the columns of ``DAYS`` and ``volatility``, the log of the root of the mean squared log return of
        the next 5 days. What there are too few days for is missing.
    """
    change = _log(prices["Adj Close"]).diff()
    return pd.DataFrame({
        "change": change,
        "log_change": _power_of_ten(change.abs()),
        "log_swing": _power_of_ten(_log(prices["High"] / prices["Low"])),
        "log_volume": _log(prices["Volume"] / prices["Volume"].rolling(20).mean().shift()) / np.log(10),
        "volatility": _log((change**2).rolling(AHEAD).mean()).shift(-AHEAD) / 2,
    })  # fmt: skip


def _log(values: pd.Series) -> pd.Series:
    return pd.Series(np.log(values), values.index)


def _power_of_ten(values: pd.Series) -> pd.Series:
    return _log(values.clip(lower=1e-5)) / np.log(10)  # a day without a change has no logarithm


def windows(days: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return every window of one stock's days that is complete, and where it ends.

    Args:
        days: What ``describe`` returns.

    Returns:
        Inputs, float32 (windows, WINDOW, columns), and the number of each one's last day, int64 (windows,), for the
        days whose ``volatility`` is known.
    """
    known = days[[column.name for column in DAYS]].notna().all(axis=1)
    first = int(np.argmax(known))
    ends = np.arange(first + WINDOW - 1, len(days) - AHEAD)
    values = encode(days.iloc[first:], DAYS)
    return np.stack([values[end - first - WINDOW + 1 : end - first + 1] for end in ends]), ends
