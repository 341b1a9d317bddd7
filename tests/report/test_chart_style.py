import io

import matplotlib
import pytest
from matplotlib.figure import Figure

from fedsim.report.chart_style import STYLE, Chart


def drawn(figure: Figure, kind: str) -> bytes:
    panels = figure.subplots(1, 2)
    for number, panel in enumerate(panels):
        panel.plot([1, 2, 30], [number, 3, 1000], label="a name")
        panel.set_title("What is drawn")
        panel.set_ylabel("a label")
    figure.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else {"Software": None})
    return buffer.getvalue()


@pytest.mark.whole
@pytest.mark.parametrize("kind", ["svg", "png"])
def test_a_chart_is_drawn_as_matplotlib_draws_it_byte_for_byte(kind: str):
    with matplotlib.rc_context(STYLE):
        usual = drawn(Figure(figsize=(4.6, 3), layout="constrained"), kind)
        assert drawn(Chart(4.6, 3), kind) == usual
        assert drawn(Figure(figsize=(4.6, 3)), kind) != usual
