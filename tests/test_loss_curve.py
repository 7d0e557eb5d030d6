"""The figure of a training has the rows of its loss curve, on axes that can be read."""

import numpy as np
import pytest

from xray.miniature.loss_curve import loss_figure


@pytest.mark.parametrize("loss", [[31.9, 4.0, 0.05, 0.004], [0.42, 0.24, 0.21, 0.2], [0.3]])
def test_the_figure_shows_the_rows(tmp_path, loss):
    curve = tmp_path / "diffusion" / "loss.csv"
    curve.parent.mkdir()
    samples = 1600 * np.arange(1, 1 + len(loss))
    np.savetxt(curve, np.stack([samples, samples / 40, loss], 1), delimiter=",")
    figure = loss_figure(curve)
    (axes,) = figure.axes
    (line,) = axes.lines
    np.testing.assert_allclose(line.get_xydata(), np.stack([samples, loss], 1))
    told = " ".join(text.get_text() for text in figure.texts)
    assert "diffusion" in told and f"{samples[-1]:,} samples" in told
    figure.canvas.draw()
    low, high = axes.get_ylim()
    labels = [t for t in axes.get_yticklabels() if low <= t.get_position()[1] <= high]
    boxes = [t.get_window_extent() for t in labels if t.get_text()]
    boxes.sort(key=lambda box: box.y0)
    assert all(a.y1 <= b.y0 for a, b in zip(boxes, boxes[1:], strict=False)), "labels overlap"
