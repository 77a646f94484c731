"""Which heights and widths a network takes."""

from __future__ import annotations

from collections.abc import Sequence

from zoo.errors import ConfigError


def check_sides(event_shape: Sequence[int], factor: int, reason: str = "") -> None:
    """Checks that the height and the width of images (C, H, W) are multiples of a factor.

    Args:
        event_shape: (C, H, W).
        factor: The factor.
        reason: What needs it, as the end of a phrase such as " for 3 levels".

    Raises:
        ConfigError: They are not; the message names the nearest sizes that are.
    """
    sides = event_shape[1:]
    if all(side % factor == 0 for side in sides):
        return
    nearest = dict.fromkeys(
        "x".join(str(max(1, side) * factor) for side in multiples)
        for multiples in ([side // factor for side in sides], [-(-side // factor) for side in sides])
    )
    raise ConfigError(
        f"event_shape: expected a height and a width of multiples of {factor}{reason}, found "
        f"{'x'.join(map(str, sides))}; the nearest sizes are {' and '.join(nearest)}"
    )
