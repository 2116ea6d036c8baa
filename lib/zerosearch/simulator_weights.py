"""Which shorter numbers a machine can hold a simulator's weights in: the word ``simulator_weights`` of the layout.

``int8``: weights of a row share a scale, and so does what comes in, which is rounded as it comes (W8A8).  ``w4a16``:
four bits, a scale and a zero for every group of up to 128 weights of a row; what comes in stays as it is.  ``fp8``:
weights and what comes in as 8-bit floats with a scale.  Nothing heavy is imported: the check before a run asks too.
"""

from __future__ import annotations

from dataclasses import dataclass

from zerosearch.environment import installed_version
from zerosearch.errors import ConfigError
from zerosearch.layouts import Layout

AS_IS, AUTO = "as-is", "auto"
PACKAGE = "torchao"
INSTALL = "pip install -c constraints.txt -e '.[quant]'"
BYTES = {"int8": 1.0, "fp8": 1.0, "w4a16": 0.5 + 4 / 128, AUTO: 1.0}  # of one weight; auto: the most that it takes


@dataclass(frozen=True, slots=True)
class Place:
    """Where a simulator writes.

    capability: compute capability of its card, None for a CPU.  short: the layout's precision is bf16.  served: by
    vLLM, not in this process.
    """

    capability: tuple[int, int] | None
    short: bool
    served: bool = False

    @property
    def words(self) -> str:
        """Say what matters of it, for messages."""
        card = "a CPU" if self.capability is None else "a card of compute capability {}.{}".format(*self.capability)
        return f"{card}, {'vLLM, ' * self.served}precision {'bf16' if self.short else 'float32'}"


def possible(place: Place) -> tuple[str, ...]:
    """Return the short numbers that a place can compute with, the best first."""
    if place.capability is None:
        return ("int8",) if place.served else ("int8", "w4a16")  # vLLM knows no layer of four bits on a CPU
    found = [("fp8", (8, 9), True), ("w4a16", (8, 0), True), ("int8", (8, 0), False)]  # kernels for bfloat16 alone?
    return tuple(kind for kind, least, bf16 in found if place.capability >= least and (place.short or not bf16))


def settled(asked: str, place: Place) -> str:
    """Return the numbers for a wish: ``as-is``, int8, w4a16 or fp8.

    auto is the best that the place can do, ``as-is`` where that is nothing.  ConfigError for what it cannot do, with
    what it can; for anything but as-is where the library is absent.
    """
    can = possible(place)
    if asked == AUTO:
        asked = can[0] if can else AS_IS
    if asked == AS_IS:
        return AS_IS
    if asked not in can:
        needs = "; fp8 needs a card of 8.9 or later, w4a16 one of 8.0, both with layout.precision=bf16"
        raise ConfigError(
            f"layout.simulator_weights: expected one of {', '.join((AS_IS, *can))} here ({place.words}), found {asked}"
            f"{needs if place.capability is not None or asked == 'fp8' else ''}; choose with "
            f"--set layout.simulator_weights={can[0] if can else AS_IS}"
        )
    if installed_version(PACKAGE) is None:
        raise ConfigError(
            f"layout.simulator_weights={asked}: expected the extra 'quant', found no {PACKAGE}; install it with "
            f"`{INSTALL}`, or leave the weights as they are with --set layout.simulator_weights={AS_IS}"
        )
    return asked


def problem(layout: Layout, place: Place, elsewhere: bool) -> str:
    """Return why a run cannot have its simulator's weights so, "" where it can.

    elsewhere: the simulator is on a server that the run does not start.
    """
    if layout.simulator_weights == AS_IS:
        return ""
    if elsewhere:
        return (
            f"layout.simulator_weights={layout.simulator_weights}: expected a simulator that this run starts, found one "
            f"at 03.simulator_url, whose weights its own server decides; add --set layout.simulator_weights={AS_IS}"
        )
    try:
        settled(layout.simulator_weights, place)
    except ConfigError as error:
        return str(error)
    return ""
