"""Names of the methods that a study compares."""

from collections.abc import Collection, Sequence

from pipeline.types import InputError


def refuse_unknown_methods(methods: Sequence[str], known: Collection[str]) -> None:
    """Raise :class:`InputError` with the names that are not known, and where there is none."""
    if not methods:
        raise InputError(f"name at least one method: {', '.join(known)}.", "methods")
    unknown = sorted(set(methods) - set(known))
    if unknown:
        raise InputError(
            f"unknown methods {', '.join(unknown)}; known are {', '.join(known)}.", "methods"
        )
