"""The questions fgdiag asks by default, and how a class label is spoken."""

FINE_QUESTION = "What exactly is this?"
COARSE_QUESTION = "What kind of thing is this?"


def spoken(label: str) -> str:
    """A label as words: `Arla-Ecological-Milk` becomes `Arla Ecological Milk`."""
    return " ".join(label.replace("-", " ").replace("_", " ").split())
