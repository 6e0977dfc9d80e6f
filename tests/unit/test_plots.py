"""Figures show what they are given."""

import numpy as np
import pytest

import lfiw_ope as ope
from lfiw_ope.evaluation import PLAIN, new_figure, plot_reliability, save_figure

CURVE = ope.ReliabilityCurve(
    edges=(0.0, 0.5, 1.0),
    predicted=(0.4, 0.6),
    observed=(0.45, 0.53),
    count=(300, 100),
    weight=(0.75, 0.25),
    standard_error=(0.03, 0.05),
)


def test_a_reliability_curve_is_drawn_as_it_is(tmp_path):
    axes = new_figure(4, 4).subplots()
    assert plot_reliability(axes, CURVE) is axes
    (dots,) = axes.collections[-1:]
    assert dots.get_offsets().tolist() == [[0.4, 0.45], [0.6, 0.53]]
    big, small = dots.get_sizes()
    assert big == pytest.approx(3 * small)
    assert "calibration error 0.055" in axes.get_legend().get_texts()[-1].get_text()
    # Both axes show the same range, which holds every dot and not all of [0, 1].
    assert axes.get_xlim() == axes.get_ylim()
    assert 0.2 < axes.get_xlim()[0] < 0.4
    assert 0.6 < axes.get_xlim()[1] < 0.8
    bars = axes.containers[0].lines[2][0].get_segments()
    lengths = [np.ptp(bar[:, 1]) for bar in bars]
    assert lengths == pytest.approx([4 * 0.03, 4 * 0.05])
    assert save_figure(axes.figure, tmp_path / "curve.png").stat().st_size > 5000


@pytest.mark.parametrize("lines", [0, 1])
def test_curves_share_axes_and_one_diagonal(lines):
    axes = new_figure(4, 4).subplots()
    for _ in range(lines):
        axes.axhline(0.5)
    plot_reliability(axes, CURVE, "after")
    wide = ope.ReliabilityCurve(
        (0.0, 0.5, 1.0), (0.05, 0.9), (0.3, 0.6), (50, 50), (0.5, 0.5), (0.03,) * 2
    )
    plot_reliability(axes, wide, "before", PLAIN)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert [label.split(":")[0] for label in labels] == ["calibrated", "after", "before"]
    low, high = axes.get_xlim()
    assert 0.0 <= low < 0.05
    assert 0.9 < high <= 1.0
