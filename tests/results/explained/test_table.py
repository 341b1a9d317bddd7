"""The table of explanations is read as it was written, and nothing else is taken for one."""

from pathlib import Path

import pandas as pd
import pytest

from fedsim.mistakes import Mistake
from fedsim.results.explained.table import FILE, read, write

ROW = {
    "method": "permutation", "arm": "federated", "private": True, "site": "NA", "feature": "7", "importance": 0.25,
    "spread": None, "seeds": 1, "unit": "",
}  # fmt: skip


def test_what_is_written_is_read(tmp_path: Path):
    assert read(tmp_path) is None
    write(tmp_path, pd.DataFrame([ROW]))
    table = read(tmp_path)
    assert table is not None
    (row,) = table.to_dict("records")
    assert {name: row[name] for name in ROW if name != "spread"} == {
        name: value for name, value in ROW.items() if name != "spread"
    }
    assert pd.isna(row["spread"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"arm": "everyone"}, "arm of row 0: expected one of federated"),
        ({"private": "maybe"}, "private of row 0: expected true or false"),
        ({"importance": "much"}, "importance of row 0: expected a number"),
    ],
)
def test_a_table_of_something_else_is_refused(tmp_path: Path, change: dict, said: str):
    write(tmp_path, pd.DataFrame([ROW | change]))
    with pytest.raises(Mistake, match=said):
        read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"a,b\n1,2\n"])
def test_what_is_no_such_table_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(Mistake, match=FILE):
        read(tmp_path)
