"""Rounds widths as in TensorFlow's and torchvision's code for MobileNetV2 and its successors."""


def rounded(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor`, at least `divisor`, and never more than a tenth below `channels`.

    `make_divisible` of TensorFlow-Slim (research/slim/nets/mobilenet/conv_blocks.py).
    """
    nearest = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * channels else nearest
