"""Channel shuffle on and off: Zhang et al. 2017, arXiv 1707.01083, Tables 2 and 3."""

from decimal import Decimal

from smallcnn.study.definition import SMALL, Row, Study

# groups, scale, shuffled, error in Table 2 (shuffled) or 3, images per second
_ROWS = (
    (1, "0.25", True, "57.1", 570),
    (2, "0.24", False, "", 470),
    (2, "0.24", True, "56.8", 500),
    (3, "0.25", False, "56.3", 450),
    (3, "0.25", True, "55.0", 400),
    (4, "0.235294", False, "", 380),
    (4, "0.235294", True, "54.2", 380),
    (8, "0.25", False, "56.5", 300),
    (8, "0.25", True, "52.7", 260),
)


def _row(groups: int, scale: str, shuffled: bool, error: str, images_per_second: float) -> Row:
    return Row(
        f"g={groups}" if shuffled else f"g={groups}, no shuffle",
        f"shufflenet_v1:groups={groups},scale={scale},shuffle={'paper' if shuffled else 'none'},small_input=true",
        images_per_second,
        str(100 - Decimal(error)) if error else "",
    )


SHUFFLE = Study(
    name="shuffle",
    title="ShuffleNet with and without its shuffle",
    question="Do grouped 1x1 convolutions need the channel shuffle, and does the need grow with the number of groups?",
    source="Zhang et al. 2017 (arXiv 1707.01083), Tables 2 and 3, scale 0.25 at 224x224: 100 minus the printed error; "
    "here without the first stride and pool, and with 2 and 4 groups at the nearest scales whose channels divide (0.24 "
    "and 0.235)",
    published="ImageNet top-1, % (another data set)",
    recipe=SMALL,
    rows=tuple(_row(*row) for row in _ROWS),
)
