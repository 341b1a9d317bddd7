"""Daily stock prices, turned into windows of days and the volatility that follows each."""

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
    """Compute each day's inputs, known when it ends, and the volatility that follows.

    Only ratios of prices and volumes a few days apart enter, never their levels: levels hold later
    splits and dividends (``Adj Close`` is corrected backwards) and give away the date.

    Args:
        prices: The days of a stock, oldest first: High, Low, Adj Close, Volume.

    Returns:
        For each day the columns of ``DAYS`` and ``volatility``, the log of the root of the mean
        squared log return of the next 5 days. Values for which there are too few days are missing.
    """
    change = _log(prices["Adj Close"]).diff()
    swing = _log(prices["High"] / prices["Low"])
    mean_volume = prices["Volume"].rolling(20).mean().shift()  # of the 20 days before
    mean_square = (change**2).rolling(AHEAD).mean()
    return pd.DataFrame({
        "change": change,
        "log_change": _power_of_ten(change.abs()),
        "log_swing": _power_of_ten(swing),
        "log_volume": _log(prices["Volume"] / mean_volume) / np.log(10),
        "volatility": _log(mean_square).shift(-AHEAD) / 2,
    })  # fmt: skip


def _log(values: pd.Series) -> pd.Series:
    """Return natural logarithms."""
    return pd.Series(np.log(values), values.index)


def _power_of_ten(values: pd.Series) -> pd.Series:
    """Return decimal logarithms of sizes >= 0."""
    return _log(values.clip(lower=1e-5)) / np.log(10)  # a day without a change has no logarithm


def windows(days: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return every complete window of a stock's days, and the day on which it ends.

    Args:
        days: The days as ``describe`` returns them.

    Returns:
        Inputs, float32 (windows, WINDOW, columns), and the number of each window's last day, int64
        (windows,), for the days whose ``volatility`` is known.
    """
    names = [column.name for column in DAYS]
    complete = days[names].notna().all(axis=1)
    first = int(np.argmax(complete))
    ends = np.arange(first + WINDOW - 1, len(days) - AHEAD)

    values = encode(days.iloc[first:], DAYS)  # (days from the first, columns)
    inputs = []
    for end in ends:
        stop = end - first + 1
        inputs.append(values[stop - WINDOW : stop])
    return np.stack(inputs), ends
