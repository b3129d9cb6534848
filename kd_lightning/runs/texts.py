"""Counts as text for people."""


def counted(count: float, noun: str, plural: str | None = None) -> str:
    """A count with its noun: 1 error, 2 errors, 1,234 images.

    Args:
        count: How many.
        noun: In the singular.
        plural: Where it is not the noun and an s.
    """
    return f"{count:,} {noun_for(count, noun, plural)}"


def noun_for(count: float, noun: str, plural: str | None = None) -> str:
    """Only the noun, in the form that fits the count; arguments as of `counted`."""
    return noun if count == 1 else plural or f"{noun}s"
