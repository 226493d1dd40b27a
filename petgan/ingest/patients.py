"""Whose picture it is, where its file does not say so.

======================  ==================================================================================
``folder``              the first folder below the given one
``file``                every file is a patient of her own
``mini-mias``           mdb001 and mdb002 are the two breasts of one woman, and so on
a regular expression    its one group, searched in the path below the given folder
``auto``                DICOM: PatientID; the films of public collections: the woman in their names, see
                        `petgan.ingest.collections`; what is left: ``folder`` where there are folders, else
                        ``file``
======================  ==================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

from petgan.errors import ConfigError
from petgan.ingest.collections import mini_mias_woman
from petgan.ingest.frame import Refused

# What "auto" comes to where every file says whose it is, by its header or by a collection's names.
PATIENT_ID, COLLECTION = "PatientID", "collection"


def by_folder(name: str) -> str:
    parts = PurePosixPath(name).parts
    if len(parts) < 2:
        raise Refused("lies in no sub-folder, so its patient is not known")
    return parts[0]


def by_file(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def by_mini_mias(name: str) -> str:
    woman = mini_mias_woman(PurePosixPath(name).stem)
    if woman is None:
        raise Refused("is not named as mini-MIAS names its films (mdb001)")
    return woman


RULES: dict[str, Callable[[str], str]] = {"folder": by_folder, "file": by_file, "mini-mias": by_mini_mias}
SETTLED = (PATIENT_ID, COLLECTION, *RULES)  # what `resolve_rule` may give for "auto": no names are in it


def check_rule(rule: str) -> None:
    """Refuse what is neither ``auto``, nor a rule's name, nor a regular expression with one group."""
    if rule != "auto" and rule not in RULES:
        try:
            groups = re.compile(rule).groups
        except re.error:
            groups = 0
        if groups != 1:
            raise ConfigError(
                "there is no such rule for patients",
                value=rule,
                allowed=f"auto, {', '.join(RULES)}, or a regular expression with one group",
            )


def resolve_rule(rule: str, names: Iterable[str], by_collection: bool = False) -> str:
    """The rule itself, or what ``auto`` comes to.

    Parameters
    ----------
    rule : str
    names : iterable of str
        Of the files that say by neither header nor collection whose they are.
    by_collection : bool
        Whether there are files that say it by a collection's names.
    """
    names = list(names)
    if rule != "auto":
        return rule
    if not names:
        return COLLECTION if by_collection else PATIENT_ID
    return "folder" if any("/" in name for name in names) else "file"


def patient_of(name: str, rule: str) -> str:
    """The patient of a picture.

    Raises
    ------
    Refused
        If the rule finds none.
    """
    if rule in RULES:
        return RULES[rule](name)
    match = re.search(rule, name)
    if not match or not match[1]:
        raise Refused("has a name in which the expression for patients finds nothing")
    return match[1]
