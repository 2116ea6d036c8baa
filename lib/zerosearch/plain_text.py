"""Untrusted text made fit for a terminal: control characters become visible signs.

Files, models and engines may hold escape sequences that recolour a terminal or hide what stands before
them, and signs that turn the writing direction.  Every message passes through ``clean`` on its way out.
Called by ``errors``, ``display``, ``console`` and the commands.
"""

from __future__ import annotations

import re

# Control characters (C0, DEL, C1) except tab and newline, the signs that turn writing direction, and
# halves of surrogate pairs, which no terminal encoding can write.
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def clean(text: object) -> str:
    """Return the text with control characters replaced by visible signs: ESC becomes ␛."""
    return _CONTROL.sub(lambda found: _sign(found.group()), str(text))


def _sign(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"<U+{code:04X}>"
