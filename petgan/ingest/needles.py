"""Find any of many byte strings in large files: upper and lower case of ASCII letters are alike.

Each string has an anchor, the first 6 bytes of it that are of 3 kinds or more. The anchors of all strings
stand in a table that is asked for every position of a block at once; where one stands, the few lengths that
strings with this anchor have are compared by a hash, and what agrees is compared byte by byte. So time
does not grow with the number of strings, and memory does by about 40 bytes each.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator

import numpy as np

ANCHOR = 6
KINDS = 3  # of bytes in an anchor: a run of zeros or spaces stands everywhere
LONGEST = 2048  # bytes of a string

_MASK = np.uint64(2 ** (8 * ANCHOR) - 1)
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio (Knuth, The Art of Computer Programming, 6.4)


def anchor(needle: bytes) -> int | None:
    """Where the anchor of a string begins; None if it has none, so that it cannot be searched for."""
    return next(
        (at for at in range(len(needle) - ANCHOR + 1) if len(set(needle[at : at + ANCHOR])) >= KINDS), None
    )


class Needles:
    """Byte strings to search for.

    Parameters
    ----------
    needles : iterable of (int, bytes)
        Number and string, of at most `LONGEST` bytes. A string that has no `anchor` is left out; of equal
        ones the first counts.
    recall : callable (int) -> bytes
        The string of a number again, so that all need not stay in memory.
    """

    def __init__(self, needles: Iterable[tuple[int, bytes]], recall: Callable[[int], bytes]) -> None:
        self._recall = recall
        anchors, shapes, hashes, numbers = array("Q"), array("Q"), array("q"), array("q")
        for number, needle in needles:
            folded = needle.lower()
            at = anchor(folded)
            if at is not None and len(folded) <= LONGEST:
                anchors.append(int.from_bytes(folded[at : at + ANCHOR], "little"))
                shapes.append(at << 16 | len(folded))
                hashes.append(hash(folded))
                numbers.append(number)
        self._hashes, first = np.unique(np.frombuffer(hashes, np.int64), return_index=True)
        self._numbers = np.frombuffer(numbers, np.int64)[first]
        pairs = np.unique(
            np.stack([np.frombuffer(anchors, np.uint64)[first], np.frombuffer(shapes, np.uint64)[first]], 1),
            axis=0,
        )
        self._anchors, self._starts = np.unique(pairs[:, 0], return_index=True)
        self._stops = np.append(self._starts[1:], len(pairs))
        self._shapes = [(int(shape) >> 16, int(shape) & 0xFFFF) for shape in pairs[:, 1]]
        bits = min(26, max(12, len(self._anchors).bit_length() + 6))
        self._shift = np.uint64(64 - bits)
        self._table = np.zeros(2**bits, bool)
        self._table[self._slots(self._anchors)] = True

    def __len__(self) -> int:
        return len(self._numbers)

    def find(self, block: bytes, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, int]]:
        """Positions and numbers of the strings in a block whose anchors begin in [start, stop)."""
        if not len(self):
            return
        folded = block.lower()
        stop = len(block) if stop is None else stop
        count = min(stop, len(block) - ANCHOR + 1) - start
        if count <= 0:
            return
        padded = folded[start : start + count + 7].ljust(count + 7, b"\0")
        keys = np.ndarray((count,), "<u8", padded, strides=(1,)) & _MASK
        hits = np.flatnonzero(self._table[self._slots(keys)])
        places = np.searchsorted(self._anchors, keys[hits])
        places = np.minimum(places, len(self._anchors) - 1)
        is_anchor = self._anchors[places] == keys[hits]
        candidates = []
        for hit, place in zip((hits[is_anchor] + start).tolist(), places[is_anchor].tolist(), strict=True):
            for at, length in self._shapes[self._starts[place] : self._stops[place]]:
                begin = hit - at
                if begin >= 0 and begin + length <= len(folded):
                    candidates.append((begin, length, hash(folded[begin : begin + length])))
        if not candidates:
            return
        wanted = np.array([candidate[2] for candidate in candidates], np.int64)
        found = np.minimum(np.searchsorted(self._hashes, wanted), len(self._hashes) - 1)
        for index in np.flatnonzero(self._hashes[found] == wanted):
            begin, length, _ = candidates[index]
            number = int(self._numbers[found[index]])
            if self._recall(number).lower() == folded[begin : begin + length]:
                yield begin, number

    def _slots(self, keys: np.ndarray) -> np.ndarray:
        return (keys * _FACTOR) >> self._shift
