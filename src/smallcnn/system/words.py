"""Words of messages."""


def several(count: int, noun: str) -> str:
    """A count and its noun, in the plural unless it is 1: 1 thread, 2 classes."""
    return f"{count:,} {noun}" + ("" if count == 1 else "es" if noun.endswith("s") else "s")
