"""ShuffleNetV2's rules, shared by torchvision and the authors' code except for the names."""

from collections.abc import Callable

from smallcnn.checkpoints.layouts.layout import Rules, conv_bn, stages

# ShuffleNetV2's 16 units, three stages of 4, 8 and 4; a stride-2 unit has layers in its shortcut too
_SHUFFLE_BRANCH = {
    **conv_bn("branch.pointwise1", "0", "1"),
    **conv_bn("branch.depthwise", "3", "4"),
    **conv_bn("branch.pointwise2", "5", "6"),
}
_SHUFFLE_SHORTCUT = {**conv_bn("shortcut.depthwise", "0", "1"), **conv_bn("shortcut.pointwise", "2", "3")}
_SHUFFLE_PLACE = stages(4, 8, 4)


def by_stage(end: str) -> Callable[..., str]:
    """Unit i as `stage<2 to 4>.<place>.<end>`."""

    def name(i: int) -> str:
        stage, unit = _SHUFFLE_PLACE(i)
        return f"stage{stage + 2}.{unit}.{end}"

    return name


def by_feature(end: str) -> Callable[..., str]:
    """Unit i as `features.<i - 1>.<end>`."""
    return lambda i: f"features.{i - 1}.{end}"


def shufflenet_v2(
    place: Callable[[str], Callable[..., str]], branch: str, shortcut: str, stem: str, last: str
) -> Rules:
    """All rules except the classifier's: how a unit is placed, and the names of its two sides, the stem and the end."""
    return {
        **conv_bn("stem", f"{stem}.0", f"{stem}.1"),
        **{f"block{{i}}.{ours}": place(f"{branch}.{theirs}") for ours, theirs in _SHUFFLE_BRANCH.items()},
        **{f"block{{i}}.{ours}": place(f"{shortcut}.{theirs}") for ours, theirs in _SHUFFLE_SHORTCUT.items()},
        **conv_bn("last", f"{last}.0", f"{last}.1"),
    }
