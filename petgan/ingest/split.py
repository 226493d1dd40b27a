"""Which patients train, validate and test.

Each patient has a number in [0, 1) of her own, the key's hash of her id; the shares cut [0, 1) into
intervals. So she keeps her split when patients are added.

Groups
------
Patients that share a picture (`petgan.ingest.duplicates.groups`) go together. A group counts as one
patient, the one whose name is the smallest: her number and her collection hold for all. So a group moves
only if a patient with a smaller name joins it, and that is the only way in which patients of another
collection can matter.

Loans
-----
Every collection is split on its own. Only where it has few patients can an interval be empty: then, given
three patients or more, the patient whose number lies nearest to its middle is lent to it by a split that
has more than one. She goes back when the interval gets a patient of its own, and another one is lent in
her place when one comes who lies nearer. Nobody else moves, and nobody at all once every interval has a
patient of its own.

How far the shares are met
--------------------------
As far as by lot, and no further: of n patients a share p comes to p n with a standard deviation of
sqrt(n p (1 - p)). With 15 % for the test, 95 of 100 collections of 100 patients give it 8 to 22 of them.
Counted in images it varies more where patients have unequal numbers of them.

How often someone moves
-----------------------
When one patient is added to a collection of n, with shares of 70, 15 and 15 % (simulated, 3,000 times):

==============================  =====  =====  =====  =====  =====  =====
n                               3      5      10     20     30     40
==============================  =====  =====  =====  =====  =====  =====
a loan stands                   90 %   73 %   37 %   7 %    1.4 %  0.2 %
the addition moves one or two   49 %   28 %   10 %   1.5 %  0.2 %  0.03 %
==============================  =====  =====  =====  =====  =====  =====

From 60 patients on neither was seen.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

from petgan.store import SPLITS

FEWEST_PATIENTS = 3


def assign_splits(
    fractions: Mapping[str, float],
    shares: tuple[float, float, float],
    *,
    collections: Mapping[str, str] | None = None,
    together: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The split of each patient.

    Parameters
    ----------
    fractions : mapping of str to float
        Each patient's number in [0, 1).
    shares : (float, float, float)
        Of train, validation and test; their sum is 1.
    collections : mapping of str to str, optional
        Of each patient; all of one if None.
    together : mapping of str to str, optional
        The same value for patients that belong together; nobody does if None.

    Returns
    -------
    dict of str to str
    """
    group_of = {patient: together[patient] if together else patient for patient in fractions}
    first: dict[str, str] = {}
    for patient in sorted(fractions):
        first.setdefault(group_of[patient], patient)
    by_collection: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for patient in first.values():
        by_collection[collections[patient] if collections else ""][patient] = fractions[patient]
    chosen: dict[str, str] = {}
    for numbers in by_collection.values():
        chosen |= _split_one(numbers, shares)
    return {patient: chosen[first[group_of[patient]]] for patient in fractions}


def _split_one(fractions: Mapping[str, float], shares: tuple[float, float, float]) -> dict[str, str]:
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
