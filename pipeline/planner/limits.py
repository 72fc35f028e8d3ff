"""What a run may use: memory of one process, and disk."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ByteSize, TypeAdapter, ValidationError

from pipeline.config import Options

_BYTE_SIZE = TypeAdapter(ByteSize)


def parse_bytes(value: Any) -> int:
    """Bytes from a number or from a text such as ``8GiB``."""
    try:
        size = 0 if isinstance(value, bool) else int(_BYTE_SIZE.validate_python(value))
    except ValidationError:
        size = 0
    if size <= 0:
        raise ValueError("expected a positive number of bytes, such as 8GiB or 500MB")
    return size


def _auto_or_bytes(value: Any) -> Any:
    if value == "auto":
        return value
    try:
        return parse_bytes(value)
    except ValueError as error:
        raise ValueError(f"{error}, or auto") from None


Bytes = Annotated[int, BeforeValidator(parse_bytes)]
AutoOrBytes = Annotated[Literal["auto"] | int, BeforeValidator(_auto_or_bytes)]


class LimitsOptions(Options):
    """What the run may use; a plan that needs more is refused before any work starts."""

    memory: AutoOrBytes = "auto"
    """Bytes (``8GiB``) that one process, the driver or a worker, may use; auto divides 80 % of
    what is available among the processes of a machine."""
    disk: AutoOrBytes = "auto"
    """Bytes that features and kernels may take below store.root; auto is 95 % of what is free."""
