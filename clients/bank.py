"""Banks predict which loans go bad, which cards go unpaid, and how much a stock's price will swing.

Ranges are round numbers that a bank knows without looking at its customers: the lender's own limits
and rates, the scale of a code, powers of ten for amounts. Amounts of money enter as their
logarithms, because they span many powers.
"""

import math
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from clients import prices
from clients.files import read_table
from clients.models import Recurrent, linear
from fedsim.data import Column, Levels, Number, RawColumns, Rows, TableForm, Task, encode

LENDING: tuple[Column, ...] = (
    Number("funded_amnt", 1_000, 40_000, "dollars; the lender's limits"),
    Levels("term", (0, 1), "36 or 60 months"),
    Number("int_rate", 5, 31, "% a year; the lender's rates"),
    Number("sub_grade", 1, 35, "the lender's grade, A1 to G5"),
    Levels("verification_status", (0, 1, 2), "income: not verified, verified, its source verified"),
    Number("log_annual_inc", 3, 6, "power of ten, dollars a year"),
    Number("emp_length", 0, 10, "years in employment; 10 is the most the form takes", missing=True),
    Number("delinq_2yrs", 0, 10, "payments more than 30 days late in 2 years"),
    Number("inq_last_6mths", 0, 6, "credit inquiries in 6 months"),
    Number("revol_util", 0, 100, "% of revolving credit in use"),
    Number("acc_now_delinq", 0, 2, "accounts now behind"),
    Number("open_il_6m", 0, 20, "instalment accounts now active"),
    Number("open_il_12m", 0, 10, "instalment accounts opened in 12 months"),
    Number("open_il_24m", 0, 10, "instalment accounts opened in 24 months"),
    Number("log_total_bal_il", 0, 6, "power of ten, dollars owed on instalments and one"),
    Number("all_util", 0, 150, "% of all credit limits in use"),
    Number("inq_fi", 0, 10, "personal finance inquiries"),
    Number("inq_last_12m", 0, 20, "credit inquiries in 12 months"),
    Number("log_delinq_amnt", 0, 5, "power of ten, dollars behind and one"),
    Number("num_il_tl", 0, 50, "instalment accounts ever"),
    Number(
        "log_total_il_high_credit_limit",
        0,
        6,
        "power of ten, dollars of instalment limits and one",
    ),
)

MONTHS = ("Sep", "Aug", "Jul", "Jun", "May", "Apr")  # of 2005, the last first, as in the file


def _columns_of(month: str) -> tuple[Column, ...]:
    """Return the columns that describe a month of a credit card."""
    return (
        Levels(
            f"status_{month}",
            (-2, -1, 0, 1, 2, 3),
            "not used, paid in full, revolving, months late up to 3",
        ),
        Number(f"used_{month}", -0.5, 1.5, "bill as a share of the limit"),
        Number(f"log_bill_{month}", 0, 6, "power of ten, NT dollars billed and one"),
        Number(f"log_paid_{month}", 0, 6, "power of ten, NT dollars paid and one"),
    )


CREDIT: tuple[Column, ...] = (
    Number("log_limit", 4, 6, "power of ten, NT dollars of credit; the bank's limits"),
    Levels("education", (1, 2, 3), "graduate school, university, high school", missing=True),
    *chain.from_iterable(_columns_of(month) for month in MONTHS),
)

# What is known at the end of June, from which the four months that follow are predicted.
BY_JUNE: tuple[Column, ...] = (
    Number("log_limit", 4, 6, "power of ten, NT dollars of credit; the bank's limits"),
    Levels("education", (1, 2, 3), "graduate school, university, high school", missing=True),
    *chain.from_iterable(_columns_of(month) for month in MONTHS[3:]),
)

# 0.1 % to 60 % a day.
VOLATILITY = Number("volatility", -7.0, -0.5, "log of a share")


def load_lending() -> Rows:
    """Load all 9 857 loans; a site is the customer's state."""
    frame = read_lending()
    return Rows(
        inputs=encode(pd.DataFrame(lending_columns(frame)), LENDING),
        target=frame["target"].to_numpy("float32"),
        site=frame["site"].to_numpy(str),
    )


def read_lending() -> pd.DataFrame:
    """Read the 9 857 loans as published."""
    return read_table("lending_club_by_state.csv.gz", keep_default_na=False, na_values=[""])


def lending_columns(raw: RawColumns) -> dict[str, Any]:
    """Compute the columns of ``LENDING``: amounts of money as their logarithms."""
    columns = {}
    for column in LENDING:
        amount = column.name.removeprefix("log_")
        is_amount = amount != column.name
        columns[column.name] = _power_of_ten(raw[amount]) if is_amount else raw[column.name]
    return columns


def load_credit() -> Rows:
    """Load all 30 000 cards, of a single bank; sex, marriage and age don't enter the model."""
    frame = read_credit()
    return _cards(frame, CREDIT, frame["target"].to_numpy("float32"))


def load_late_months() -> Rows:
    """Load all 30 000 cards as they were at the end of June.

    The labels are whether a card is behind in July, August and September, and whether October's bill goes unpaid.
    """
    frame = read_credit()
    behind = [frame[_status_in_file(MONTHS.index(month) + 1)] >= 1 for month in ("Jul", "Aug", "Sep")]
    return _cards(frame, BY_JUNE, np.stack([*behind, frame["target"] == 1], axis=1).astype("float32"))


def _cards(frame: pd.DataFrame, chosen: tuple[Column, ...], target: np.ndarray) -> Rows:
    columns = credit_columns(frame)
    education = frame["EDUCATION"]
    columns["education"] = education.where(education.isin([1, 2, 3]))  # 0, 4, 5, 6: other or unknown
    return Rows(
        inputs=encode(pd.DataFrame(columns), chosen),
        target=target,
        site=np.full(len(frame), "bank"),
        groups={
            "sex": np.where(frame["SEX"] == 1, "female", "male"),
            "age": _age_group(frame["AGE"]),
        },
    )


def read_credit() -> pd.DataFrame:
    """Read the 30 000 cards as published."""
    return read_table("credit_card_default_taiwan.csv.gz")


def credit_columns(raw: RawColumns) -> dict[str, Any]:
    """Compute the columns of ``CREDIT``; of the levels of education, those that it does not list are unknown."""
    columns = {"log_limit": np.log10(raw["LIMIT_BAL"]), "education": raw["EDUCATION"]}
    for number, month in enumerate(MONTHS, start=1):
        bill = raw[f"BILL_AMT{number}"]
        columns[f"status_{month}"] = np.minimum(raw[_status_in_file(number)], 3)
        columns[f"used_{month}"] = bill / raw["LIMIT_BAL"]
        columns[f"log_bill_{month}"] = _power_of_ten(np.maximum(bill, 0))  # below 0: paid ahead
        columns[f"log_paid_{month}"] = _power_of_ten(raw[f"PAY_AMT{number}"])
    return columns


def _status_in_file(month: int) -> str:
    """Return the file's column with the status of a month: it has no PAY_1."""
    return "PAY_0" if month == 1 else f"PAY_{month}"


def _power_of_ten(amount: Any) -> Any:  # noqa: ANN401  all that NumPy computes with
    """Return the decimal logarithm of an amount >= 0 plus 1, so that an amount of 0 stays 0."""
    return np.log10(amount + 1)


def _age_group(years: pd.Series) -> np.ndarray:
    """Return the age group of each customer."""
    return np.select([years < 30, years < 45], ["under 30", "30 to 44"], "45 and over")


def load_volatility() -> Rows:
    """Load every window of 20 trading days of five stocks; a site is a stock.

    Time is the day on which a window ends, counted from the first day of the year 1.
    """
    table = read_stocks().astype({"Date": "datetime64[ns]"})
    inputs = []
    targets = []
    sites = []
    times = []
    for ticker, days in table.sort_values("Date").groupby("Ticker"):
        described = prices.describe(days.reset_index(drop=True))
        windows, ends = prices.windows(described)
        volatility = described["volatility"].iloc[ends]
        last_days = days["Date"].iloc[ends]

        inputs.append(windows)
        targets.append(VOLATILITY.scaled(volatility).to_numpy("float32"))
        sites.append(np.full(len(ends), ticker))
        times.append(np.array([day.toordinal() for day in last_days], float))

    return Rows(
        inputs=np.concatenate(inputs),
        target=np.concatenate(targets),
        site=np.concatenate(sites).astype(str),
        time=np.concatenate(times),
    )


def read_stocks() -> pd.DataFrame:
    """Read the daily prices of five stocks as published."""
    return read_table("stocks_5_tickers_daily.csv.gz")


def _as_it_is(name: str, meaning: str) -> Number:
    """Return a column of a file that others are computed from, whose own range is of no account."""
    return Number(name, -math.inf, math.inf, meaning)


# The columns of the published files.
_AMOUNTS = {
    "log_annual_inc": _as_it_is("annual_inc", "dollars a year"),
    "log_total_bal_il": _as_it_is("total_bal_il", "dollars owed on instalments"),
    "log_delinq_amnt": _as_it_is("delinq_amnt", "dollars behind"),
    "log_total_il_high_credit_limit": _as_it_is("total_il_high_credit_limit", "dollars of instalment limits"),
}
LENDING_FILE: tuple[Column, ...] = tuple(_AMOUNTS.get(column.name, column) for column in LENDING)


def _credit_file() -> tuple[Column, ...]:
    columns: list[Column] = [
        _as_it_is("LIMIT_BAL", "NT dollars of credit"),
        _as_it_is("EDUCATION", "1 graduate school, 2 university, 3 high school, others unknown"),
    ]
    for number, month in enumerate(MONTHS, start=1):
        columns.append(_as_it_is(_status_in_file(number), f"status in {month}: -2 not used to 8 months late"))
        columns.append(_as_it_is(f"BILL_AMT{number}", f"NT dollars billed in {month}"))
        columns.append(_as_it_is(f"PAY_AMT{number}", f"NT dollars paid in {month}"))
    return tuple(columns)


STOCKS_FILE: tuple[Column, ...] = (
    _as_it_is("High", "dollars, the day's highest price"),
    _as_it_is("Low", "dollars, the day's lowest price"),
    _as_it_is("Adj Close", "dollars, the day's last price, corrected for splits and dividends"),
    _as_it_is("Volume", "shares traded"),
)


lending = Task(
    title="Which loans go bad: 21 facts about 9 857 personal loans, 50 states",
    outcome="the loan is charged off, late or in default",
    source="LendingClub, first quarter of 2016, as in R's modeldata; see clients/data/README.md",
    licence="MIT (modeldata)",
    columns=LENDING,
    load=load_lending,
    model=linear,
    form=TableForm(read_lending, LENDING_FILE, lending_columns),
)

credit = Task(
    title="Which cards go unpaid: six months of 30 000 credit cards in Taiwan",
    outcome="the card's next bill is not paid",
    source="UCI Default of Credit Card Clients (Yeh, Lien 2009); see clients/data/README.md",
    licence="CC BY 4.0",
    columns=CREDIT,
    load=load_credit,
    model=linear,
    form=TableForm(read_credit, _credit_file(), credit_columns),
)

volatility = Task(
    title="How much five stocks will swing in the next five days, from 20 days of prices",
    outcome="volatility of the next 5 trading days: log of the root of the mean squared log return",
    source="Quandl WIKI, daily prices 2000 to 2013; see clients/data/README.md",
    licence="public domain",
    columns=prices.DAYS,
    load=load_volatility,
    model=lambda time, inputs: Recurrent(inputs, units=16),
    kind="number",
    range=VOLATILITY,
    by_time=True,
    horizon=14.0,  # days: five trading days, with a week's holidays between
    form=TableForm(read_stocks, STOCKS_FILE, prices.describe_windows, prices.WINDOWS),
)

late_months = Task(
    title="In which of four months a credit card falls behind, 30 000 cards",
    outcome="behind in July, August, September; October's bill unpaid",
    source="UCI Default of Credit Card Clients (Yeh, Lien 2009); see clients/data/README.md",
    licence="CC BY 4.0",
    columns=BY_JUNE,
    load=load_late_months,
    model=lambda inputs: nn.Linear(inputs, 4),
    kind="multi-label",
)
