"""Whether a training has failed though its losses are numbers still, told from its logged metrics alone.

The same lines of ``metrics.jsonl`` give the same verdict, however often the run was interrupted. What is
wrong must be so at every line of `WINDOW` steps, and nothing counts that happens in the first `GRACE` steps.

``collapsed``
    The generated images of an update vary by less than `LEAST_VARIATION` of what its real ones do: one
    image, or one grey (mode collapse, Goodfellow 2016, section 5.1.1). A fresh generator varies as little: of
    ``wgan-gp`` 0.2 at 16 pixels, 0.01 at 64 and 0.001 at 224, whose cells are means of more pixels. So it
    must have varied by `VARIED` before, or have had `PATIENCE` steps to come to that.
``diverged``
    The norm of a gradient or the size of a loss is more than `FACTOR` times what is usual in this run (see
    `_Usual`), or a loss is larger than images can account for. In sound trainings of the presets, at 16 to
    64 pixels and up to 2,300 steps, it was never above 23 times the usual, and no loss above 200; rates far
    too high gave losses of 1e7 to 1e35 within ten steps.
``stalled``
    No gradient reaches the generator: its last activation saturates or its units are dead, so that it stays
    what it is. Of sound trainings none had a norm below 1e-4; where a rate is too high it is 0.

That the discriminator wins is not judged. In the study's trainings its loss goes to 0 time and again, the
generator's gradient does not, for the loss does not saturate, and the images get better all the same.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

WINDOW = 100  # steps
GRACE = 100  # steps
LINES = 5  # at least, in each of the two: some runs log seldom
LEAST_VARIATION = 0.02
VARIED = 0.1
PATIENCE = 1000  # steps, a quarter of the study's
FACTOR = 100.0
#: A critic of slope 1 tells images apart by their distance, at most 512 for 256 x 256 pixels in [-1, 1]; its
#: scores may all drift together, which costs nothing, and did by some hundreds.
LARGEST_LOSS = 1e4
#: Optimizers divide by a norm plus 1e-7 or so: what is so far below moves nothing.
LEAST_GRADIENT = 1e-12


@dataclass(frozen=True)
class Trouble:
    """What is wrong with a training.

    Parameters
    ----------
    kind : str
        ``collapsed``, ``diverged`` or ``stalled``.
    since : int
        The first of the logged steps at which it was seen.
    words : str
        What was seen at the last one.
    hint : str
        What to try.
    """

    kind: str
    since: int
    words: str
    hint: str

    def __str__(self) -> str:
        return f"{self.kind} since step {self.since}: {self.words}"


class Watch:
    """Follows the logged metrics of a run from its first line to its last.

    Parameters
    ----------
    lines : iterable of mappings
        Those logged so far: ``step``, and metrics by name. Judged are ``variation``, ``g_gradient``, and all
        whose names end with ``loss`` or ``gradient``; none has to be there.

    Attributes
    ----------
    trouble : Trouble or None
        What is wrong as of the last line.
    """

    def __init__(self, lines: Iterable[Mapping[str, float]] = ()) -> None:
        self.trouble: Trouble | None = None
        self._lines, self._varied = 0, False
        self._usual: dict[str, _Usual] = {}
        self._streaks: dict[tuple[str, str], _Streak] = {}
        for line in lines:
            self.look(line)

    def look(self, line: Mapping[str, float]) -> None:
        """Judge the next line."""
        step = int(line["step"])
        self._lines += 1
        self._varied = self._varied or line.get("variation", 0.0) >= VARIED or step > PATIENCE
        if step <= GRACE or self._lines <= LINES:
            for name in _sizes(line):
                self._usual.setdefault(name, _Usual()).add_first(abs(line[name]))
            return
        symptoms = {(kind, name): words for kind, name, words in self._symptoms(line)}
        before = self._streaks
        self._streaks = {s: before.get(s, _Streak(step)).longer(words) for s, words in symptoms.items()}
        lasting = [
            (streak.since, kind, streak.words)
            for (kind, _), streak in self._streaks.items()
            if step - streak.since >= WINDOW and streak.lines >= LINES
        ]
        self.trouble = None
        if lasting:
            since, kind, words = min(lasting, key=lambda streak: streak[0])
            self.trouble = Trouble(kind, since, words, _HINTS[kind])

    def _symptoms(self, line: Mapping[str, float]) -> Iterator[tuple[str, str, str]]:
        """Kind, metric and words of whatever is wrong at this line; the gravest first."""
        for name in _sizes(line):
            value, usual = abs(line[name]), self._usual.setdefault(name, _Usual())
            if name.endswith("loss") and value > LARGEST_LOSS:
                yield "diverged", name, f"{name} is {line[name]:.2g}"
            elif value > FACTOR * usual.value:
                yield "diverged", name, f"{name} is {value:.2g}, {value / usual.value:.0f} times the usual"
            else:
                usual.add(value)
        if self._varied and line.get("variation", 1.0) < LEAST_VARIATION:
            share = line["variation"]
            yield "collapsed", "variation", f"generated images vary by {share:.2g} of what real ones do"
        if line.get("g_gradient", 1.0) < LEAST_GRADIENT:
            yield "stalled", "g_gradient", "no gradient reaches the generator any more"


def _sizes(line: Mapping[str, float]) -> list[str]:
    return [name for name in line if name.endswith(("loss", "gradient"))]


@dataclass(frozen=True)
class _Streak:
    """What was seen at every line from `since` to the last one, at so many lines; its words there."""

    since: int
    lines: int = 0
    words: str = ""

    def longer(self, words: str) -> _Streak:
        return _Streak(self.since, self.lines + 1, words)


class _Usual:
    """How large a metric usually is: its median so far or that of the first steps, whichever is larger.

    The latter, because a discriminator that wins makes losses and gradients small for a while: what comes
    back then is nothing new. For the same reason it is never below 1.
    """

    def __init__(self) -> None:
        self._sorted: list[float] = []
        self._first = 0.0

    def add_first(self, value: float) -> None:
        self.add(value)
        self._first = self._median

    def add(self, value: float) -> None:
        insort(self._sorted, value)

    @property
    def value(self) -> float:
        return max(1.0, self._first, self._median)

    @property
    def _median(self) -> float:
        return self._sorted[len(self._sorted) // 2] if self._sorted else 0.0


_HINTS = {
    "collapsed": "try a lower learning_rate, another seed or a steadier loss",
    "diverged": "try a lower learning_rate or another optimizer",
    "stalled": "try a lower learning_rate or another optimizer",
}
