"""Closed cost formulas of the papers, in Mult-Adds. Sides are of square maps, in pixels; widths are channels.

MobileNet v1 is arXiv 1704.04861, MobileNetV2 1801.04381, ShuffleNet 1707.01083, EffNet 1801.06434. All of them count
convolutions at stride 1 whose output is as large as the input, except EffNet's block, which halves both sides.
"""

from fractions import Fraction


def standard(kernel: int, inputs: int, outputs: int, side: int) -> int:
    """A full convolution: D_K² M N D_F² (MobileNet v1, equation 2)."""
    return kernel**2 * inputs * outputs * side**2


def depthwise(kernel: int, inputs: int, side: int) -> int:
    """One filter per channel: D_K² M D_F² (MobileNet v1, equation 4)."""
    return kernel**2 * inputs * side**2


def pointwise(inputs: int, outputs: int, side: int) -> int:
    """A 1x1 convolution: M N D_F² (MobileNet v1, second term of equation 5)."""
    return inputs * outputs * side**2


def separable(kernel: int, inputs: int, outputs: int, side: int) -> int:
    """Depthwise, then 1x1 (MobileNet v1, equation 5)."""
    return depthwise(kernel, inputs, side) + pointwise(inputs, outputs, side)


def separable_share(kernel: int, outputs: int) -> Fraction:
    """Cost of a separable convolution relative to the full one: 1/N + 1/D_K² (MobileNet v1, section 3.1)."""
    return Fraction(1, outputs) + Fraction(1, kernel**2)


def separable_scaled(
    kernel: int, inputs: int, outputs: int, side: int, alpha: Fraction, rho: Fraction = Fraction(1)
) -> Fraction:
    """`separable` with the width multiplier alpha and the resolution multiplier rho (MobileNet v1, equations 6 and 7).

    A whole number where alpha and rho give whole widths and sides.
    """
    inputs_, outputs_, side_ = alpha * inputs, alpha * outputs, rho * side
    return kernel**2 * inputs_ * side_**2 + inputs_ * outputs_ * side_**2


def bottleneck(height: int, width: int, inputs: int, outputs: int, expansion: int, kernel: int = 3) -> int:
    """Inverted residual: h w k t (k + 9 + k') (MobileNetV2, section 3.3). It includes the expansion even at t = 1."""
    return height * width * inputs * expansion * (inputs + kernel**2 + outputs)


def shufflenet_unit(height: int, width: int, channels: int, bottleneck: int, groups: int) -> int:
    """Two grouped 1x1 and a 3x3 depthwise: h w (2 c m / g + 9 m) (ShuffleNet, section 3.2)."""
    return height * width * (2 * channels * bottleneck // groups + 9 * bottleneck)


def resnet_unit(height: int, width: int, channels: int, bottleneck: int) -> int:
    """Two 1x1 and a full 3x3: h w (2 c m + 9 m²) (ShuffleNet, section 3.2)."""
    return height * width * (2 * channels * bottleneck + 9 * bottleneck**2)


def resnext_unit(height: int, width: int, channels: int, bottleneck: int, groups: int) -> int:
    """Two 1x1 and a grouped 3x3: h w (2 c m + 9 m² / g) (ShuffleNet, section 3.2)."""
    return height * width * (2 * channels * bottleneck + 9 * bottleneck**2 // groups)


def effnet_block(height: int, width: int, inputs: int, bottleneck: int, outputs: int) -> int:
    """1x1, depthwise 1x3, pool along one axis, depthwise 3x1, strided 2x1 (EffNet, figure 1a; sides before, even).

    The paper prints no formula; this one is derived from the figure: h w m (k + 3 + 3/2 + k'/2).
    """
    return height * width * bottleneck * (2 * inputs + 9 + outputs) // 2
