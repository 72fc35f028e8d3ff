"""Numbers with units, for people."""

BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
DECIMAL = ("", "k", "M", "G", "T", "P", "E", "Z")


def bytes_text(count: float) -> str:
    """Bytes in binary units: ``1.4 GiB``."""
    power = 0
    while abs(count) >= 1024 and power < len(BINARY) - 1:
        count, power = count / 1024, power + 1
    return f"{count:.0f} B" if power == 0 else f"{count:.1f} {BINARY[power]}"


def flops_text(count: float) -> str:
    """Operations in decimal units: ``2.5 TFLOP``."""
    power = 0
    while abs(count) >= 1000 and power < len(DECIMAL) - 1:
        count, power = count / 1000, power + 1
    return f"{count:.3g} {DECIMAL[power]}FLOP"


def seconds_text(seconds: float) -> str:
    """A duration in its two largest units: ``3 h 20 min``."""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"
