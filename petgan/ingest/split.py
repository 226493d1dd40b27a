"""Which patients train, validate and test.

Each patient has a number in [0, 1) of her own, the key's hash of her id; the shares cut [0, 1) into
intervals. So she keeps her split when patients are added. Only where there are few can an interval be
empty: then, given three patients or more, the patient whose number lies nearest to it is lent to it by a
split that has more than one. She goes back when the interval gets a patient of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from petgan.store import SPLITS

FEWEST_PATIENTS = 3


def assign_splits(fractions: Mapping[str, float], shares: tuple[float, float, float]) -> dict[str, str]:
    """The split of each patient.

    Parameters
    ----------
    fractions : mapping of str to float
        Each patient's number in [0, 1).
    shares : (float, float, float)
        Of train, validation and test; their sum is 1.

    Returns
    -------
    dict of str to str
    """
    edges = [0.0, shares[0], shares[0] + shares[1], 1.0]
    wanted = [k for k in range(3) if shares[k] > 0]

    def own(fraction: float) -> int:
        return next((k for k in wanted if fraction < edges[k + 1]), wanted[-1])

    chosen = {patient: own(fraction) for patient, fraction in fractions.items()}
    for k in wanted if len(fractions) >= FEWEST_PATIENTS else ():
        counts = Counter(chosen.values())
        if counts[k]:
            continue
        lenders = [patient for patient in chosen if counts[chosen[patient]] > 1]
        middle = (edges[k] + edges[k + 1]) / 2
        chosen[min(lenders, key=lambda patient: (abs(fractions[patient] - middle), patient))] = k
    return {patient: SPLITS[k] for patient, k in chosen.items()}
