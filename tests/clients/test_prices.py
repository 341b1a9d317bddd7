import numpy as np
import pandas as pd
import pytest

from clients import prices
from clients.bank import load_volatility
from clients.files import read_table


@pytest.fixture(scope="module")
def apple() -> pd.DataFrame:
    table = read_table("stocks_5_tickers_daily.csv.gz", parse_dates=["Date"])
    return table[table["Ticker"] == "AAPL"].sort_values("Date").reset_index(drop=True).iloc[:200]


def test_the_target_is_what_follows_and_nothing_else(apple: pd.DataFrame):
    """Against a loop over days."""
    close = apple["Adj Close"].to_numpy()
    described = prices.describe(apple)
    for day in range(30, len(apple) - 5):
        returns = [np.log(close[later] / close[later - 1]) for later in range(day + 1, day + 6)]
        expected = 0.5 * np.log(np.mean(np.square(returns)))
        assert described["volatility"][day] == pytest.approx(expected)


def test_inputs_know_nothing_of_later_days(apple: pd.DataFrame):
    day = 120
    changed = apple.copy()
    changed.loc[day + 1 :, ["High", "Low", "Close", "Adj Close", "Volume"]] *= 3
    (before, ends), (after, _) = prices.windows(prices.describe(apple)), prices.windows(prices.describe(changed))
    np.testing.assert_array_equal(before[ends <= day], after[ends <= day])
    assert not np.array_equal(before[ends == day + 1], after[ends == day + 1])


def test_inputs_don_t_know_the_level_of_prices(apple: pd.DataFrame):
    """A later split divides all earlier adjusted prices."""
    split = apple.assign(**{name: apple[name] / 7 for name in ("High", "Low", "Adj Close")}, Volume=apple["Volume"] * 7)
    (inputs, _), (same, _) = prices.windows(prices.describe(apple)), prices.windows(prices.describe(split))
    np.testing.assert_allclose(inputs, same, atol=1e-5)


def test_a_window_ends_on_its_day(apple: pd.DataFrame):
    described = prices.describe(apple)
    inputs, ends = prices.windows(described)
    assert inputs.shape[1:] == (prices.WINDOW, len(prices.DAYS))
    assert (np.diff(ends) == 1).all()
    for number in (0, 7, len(ends) - 1):
        expected = np.log(apple["Adj Close"][ends[number]] / apple["Adj Close"][ends[number] - 1]) / 0.25
        assert inputs[number, -1, 0] == pytest.approx(np.clip(expected, -1, 1), abs=1e-5)
    assert ends[-1] == len(apple) - 1 - prices.AHEAD


def test_five_trading_days_are_within_the_horizon():
    from clients.bank import volatility

    table = read_table("stocks_5_tickers_daily.csv.gz", parse_dates=["Date"])
    for _, days in table.sort_values("Date").groupby("Ticker"):
        ahead = days["Date"].diff(prices.AHEAD).dt.days.max()
        assert ahead <= volatility.horizon
    assert load_volatility().time is not None
