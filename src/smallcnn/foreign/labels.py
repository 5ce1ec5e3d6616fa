"""Labels for a network whose file has none."""

from smallcnn.image import imagenet


def usual_labels(classes: int) -> tuple[str, ...]:
    """ImageNet's labels for 1,000 classes, or 1,001 with TensorFlow's background; else numbers."""
    known = imagenet.labels()
    usual = {len(known): known, len(known) + 1: (imagenet.BACKGROUND, *known)}
    return usual.get(classes) or tuple(f"class {i}" for i in range(classes))
