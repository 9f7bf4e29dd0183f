"""What a figure says of itself, for those who do not see it."""

from __future__ import annotations

from m2vsl.report.style import figure


def test_a_figure_says_what_its_panels_show() -> None:
    made, axes = figure(1, 2)
    axes[0, 0].set(title="solos", xlabel="frames in a batch", ylabel="per cent")
    axes[0, 0].plot([0, 1], [2, 3], label="mIoU")
    axes[0, 0].legend()
    axes[0, 1].set_yticks([0, 1], ["CAM", "EZ-VSL"])
    assert repr(made) == (
        "Figure with 2 panels. solos; across: frames in a batch; up: per cent; drawn: mIoU. up: CAM, EZ-VSL."
    )
    made.legend(*axes[0, 0].get_legend_handles_labels())
    assert repr(made).endswith("Lines and marks: mIoU.")
