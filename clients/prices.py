"""Daily stock prices, turned into windows of days and the volatility that follows each."""

from typing import Any

import numpy as np
import pandas as pd

from fedsim.data import Column, Number, RawColumns, Windows, encode

WINDOW = 20  # trading days a prediction looks back
AHEAD = 5  # trading days it looks ahead
_BEFORE = 20  # trading days before each of them, whose volume it is compared with
WINDOWS = Windows(by="Ticker", order="Date", length=_BEFORE + WINDOW, ahead=AHEAD)
_NO_CHANGE = 1e-5  # stands for no change at all, which has no logarithm
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
    mean_volume = prices["Volume"].rolling(_BEFORE).mean().shift()  # of the days before
    mean_square = (change**2).rolling(AHEAD).mean()
    return pd.DataFrame({
        "change": change,
        "log_change": _power_of_ten(change.abs()),
        "log_swing": _power_of_ten(swing),
        "log_volume": _log(prices["Volume"] / mean_volume) / np.log(10),
        "volatility": _log(mean_square).shift(-AHEAD) / 2,
    })  # fmt: skip


def describe_windows(prices: RawColumns) -> dict[str, Any]:
    """Compute the inputs of windows, as ``describe`` does for all days of a stock.

    Args:
        prices: High, Low, Adj Close and Volume of the days of each window and of those before it, (rows, 40).

    Returns:
        The columns of ``DAYS``, (rows, WINDOW).
    """
    closes = np.log(prices["Adj Close"])
    change = closes[:, _BEFORE:] - closes[:, _BEFORE - 1 : -1]
    swing = np.log(prices["High"] / prices["Low"])[:, _BEFORE:]

    # Column d of the matrix takes the mean of the days d to d + 19, which are those before day d of the window.
    days = np.arange(_BEFORE + WINDOW)[:, None]
    of_window = np.arange(WINDOW)[None]
    is_before = (days >= of_window) & (days < of_window + _BEFORE)
    mean_volume = prices["Volume"] @ (is_before / _BEFORE)
    return {
        "change": change,
        "log_change": np.log10(np.maximum(np.abs(change), _NO_CHANGE)),
        "log_swing": np.log10(np.maximum(swing, _NO_CHANGE)),
        "log_volume": np.log10(prices["Volume"][:, _BEFORE:] / mean_volume),
    }


def _log(values: pd.Series) -> pd.Series:
    """Return natural logarithms."""
    return pd.Series(np.log(values), values.index)


def _power_of_ten(values: pd.Series) -> pd.Series:
    """Return decimal logarithms of sizes >= 0."""
    return _log(values.clip(lower=_NO_CHANGE)) / np.log(10)


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
