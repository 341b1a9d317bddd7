"""Each input of a table's record has its name in the picture of an audit."""

from fedsim.audits.pictures import names_of
from fedsim.data.tables import Levels, Number


def test_levels_may_be_texts_or_numbers():
    columns = [Levels("sex", ("f", "m")), Levels("slope", (1.0, 2.5)), Number("age", 0, 100, missing=True)]
    assert names_of(columns, 6) == ["sex f", "sex m", "slope 1", "slope 2.5", "age", "age missing"]


def test_where_the_columns_do_not_tell_inputs_have_numbers():
    assert names_of([Number("age", 0, 100)], 3) == ["0", "1", "2"]
