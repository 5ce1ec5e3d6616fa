"""Labels for a network whose file has none."""

from collections import Counter
from collections.abc import Sequence

from smallcnn.image import coco, imagenet


def usual_labels(classes: int) -> tuple[str, ...]:
    """ImageNet's labels for 1,000 classes, or 1,001 with TensorFlow's background; else numbers."""
    known = imagenet.labels()
    usual = {len(known): known, len(known) + 1: (imagenet.BACKGROUND, *known)}
    return usual.get(classes) or tuple(f"class {i}" for i in range(classes))


def told_apart(labels: Sequence[str]) -> tuple[str, ...]:
    """Printable, unique names."""
    seen: Counter[str] = Counter()
    result = []
    for i, label in enumerate(labels):
        name = "".join(character for character in label[:200] if character.isprintable()) or f"class {i}"
        seen[name] += 1
        result.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(result)


def usual_of_objects(classes: int) -> tuple[str, ...]:
    """COCO's labels for a detector of 80 or 90 classes; else numbers."""
    usual = {len(found): found for found in (coco.labels(), coco.by_number())}
    return usual.get(classes) or tuple(f"class {i}" for i in range(classes))
