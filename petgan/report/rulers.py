"""What each score was measured with, its floor, and what it was shown to see on the user's own images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from petgan.report.results import Experiment, Score, score_label
from petgan.runs import read_json

NOT_CHECKED = (
    "The rulers were not checked on these images: petgan evaluate --check-ruler shows which of these "
    "corruptions each one sees"
)


@dataclass(frozen=True)
class Ruler:
    """One score's ruler.

    Parameters
    ----------
    label : str
    score : Score or None
        None for one that was checked and has scored no run.
    check : mapping or None
        Its entry of ``rulers.json``.
    """

    label: str
    score: Score | None
    check: Mapping[str, Any] | None

    def seen(self, corruption: str) -> str:
        """Such as "0.412 ± 0.020, seen"."""
        found = ((self.check or {}).get("corrupted") or {}).get(corruption)
        if found is None:
            return "not checked"
        return f"{self._value(found)}, {'seen' if found['seen'] else 'NOT seen'}"

    def is_blind_to(self, corruption: str) -> bool:
        found = ((self.check or {}).get("corrupted") or {}).get(corruption)
        return found is not None and not found["seen"]

    @property
    def floor(self) -> str:
        if not self.score or not self.score.floors:
            return "none taken"
        return "; ".join(
            f"{self.score.number(floor['value'])} "
            f"[{self.score.number(floor['low'])}, {self.score.number(floor['high'])}]"
            for floor in self.score.floors
        )

    @property
    def real(self) -> str:
        return self._value(self.check["real"]) if self.check else "not checked"

    @property
    def images(self) -> str:
        """How many were scored, and how many the check took where it took others."""
        sizes = [(of["n_fake"], of["n_real"]) for of in (self._scored, self.check) if of]
        return "; checked with ".join(f"{fake} against {real}" for fake, real in dict.fromkeys(sizes))

    @property
    def _scored(self) -> Mapping[str, int] | None:
        return {"n_fake": self.score.n_fake, "n_real": self.score.n_real} if self.score else None

    def _value(self, of: Mapping[str, float]) -> str:
        return f"{of['value']:.4g} ± {of['spread']:.2g}"


def rulers_of(experiment: Experiment) -> list[Ruler]:
    """The rulers of all scores, then others that were checked."""
    file = experiment.folder.rulers_file
    checks = read_json(file)["rulers"] if file.is_file() else {}
    names = dict.fromkeys([*experiment.scores, *checks])
    return [
        Ruler(score_label(name), experiment.scores.get(name), _same(experiment, name, checks))
        for name in names
    ]


def _same(experiment: Experiment, name: str, checks: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The check of a score's ruler; None if it was another ruler that was checked."""
    check, score = checks.get(name), experiment.scores.get(name)
    return None if check and score and check["ruler"] != score.ruler else check
