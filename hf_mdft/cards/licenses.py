"""Under which license a model made of others may stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


PERMISSIVE = ("cc0-1.0", "unlicense", "wtfpl", "mit", "isc", "zlib", "bsl-1.0", "ncsa", "postgresql", "bsd",
              "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "ms-pl", "artistic-2.0", "cdla-permissive-1.0",
              "cdla-permissive-2.0", "pddl", "odc-by", "afl-3.0", "ecl-2.0", "apache-2.0", "cc-by-2.0", "cc-by-2.5",
              "cc-by-3.0", "cc-by-4.0", "cc")  # fmt: skip
USE_RESTRICTED = ("openrail", "bigscience-openrail-m", "creativeml-openrail-m", "openrail++", "bigcode-openrail-m",
                  "bigscience-bloom-rail-1.0")  # fmt: skip
COPYLEFT = ("mpl-2.0", "epl-1.0", "epl-2.0", "eupl-1.1", "eupl-1.2", "lgpl", "lgpl-lr", "lgpl-2.1", "lgpl-3.0",
            "cdla-sharing-1.0", "odbl", "ofl-1.1", "osl-3.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "gpl", "gpl-2.0",
            "gpl-3.0", "agpl-3.0")  # fmt: skip
NON_COMMERCIAL = ("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0")
NON_COMMERCIAL_SHARE_ALIKE = ("cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0")
NO_DERIVATIVES = ("cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0")

CLASSES = (PERMISSIVE, USE_RESTRICTED, COPYLEFT, NON_COMMERCIAL, NON_COMMERCIAL_SHARE_ALIKE, NO_DERIVATIVES)
"""From the laxest to the strictest; within a class, later ones ask for more."""
ORDER = [license for group in CLASSES for license in group]


@dataclass(frozen=True)
class CombinedLicense:
    """Under which license a model made of others may stand.

    Args:
        name: The Hub's identifier, for the card: `other` where one cannot be ordered, `None` where some model states
            none.
        problems: One line for each problem of combining them.
    """

    name: str | None = None
    problems: tuple[str, ...] = ()


def combined_license(stated: Sequence[tuple[str, str | None]]) -> CombinedLicense:
    """The strictest of the licenses that the parts of a pool state, and problems of combining them.

    A sorting by kind that helps to notice trouble; no legal advice.

    Args:
        stated: Name of each model and the Hub's identifier of its license; none where its card states none.
    """
    known = [(model, str(license).lower()) for model, license in stated if license]
    silent = [model for model, license in stated if not license]
    strange = [(model, license) for model, license in known if license not in ORDER]
    strictest = max((license for _, license in known if license in ORDER), key=ORDER.index, default=None)
    problems = []
    for license in dict.fromkeys(license for _, license in strange):
        models = [model for model, theirs in strange if theirs == license]
        problems.append(f"license '{license}' cannot be compared, read its terms: {', '.join(models)}")
    for model, license in known:
        if license in NO_DERIVATIVES:
            problems.append(f"{model} ({license}) forbids sharing derivatives: do not publish what is made from it")
    # A copyleft license wants the whole under its own terms, so no stricter or other copyleft license may join.
    pairs = set()
    for model, license in known:
        if license in COPYLEFT + NON_COMMERCIAL_SHARE_ALIKE:
            for other, theirs in known:
                pair = frozenset((license, theirs))
                if theirs != license and pair not in pairs and _restricts(theirs, license):
                    pairs.add(pair)
                    problems.append(f"{model} ({license}) and {other} ({theirs}) set terms that exclude each other")
    if silent:
        problems.append(
            f"no license stated, ask the owner before you publish what is made from it: {', '.join(silent)}"
        )
    license = "other" if strange else None if silent else strictest
    return CombinedLicense(license, tuple(problems))


def _restricts(theirs: str, copyleft: str) -> bool:
    if theirs not in ORDER or theirs in PERMISSIVE:
        return False
    weak = ("mpl-2.0", "epl-1.0", "epl-2.0", "lgpl", "lgpl-lr", "lgpl-2.1", "lgpl-3.0")
    if theirs in weak and copyleft in COPYLEFT:
        return False
    if copyleft in NON_COMMERCIAL_SHARE_ALIKE:
        return theirs not in NON_COMMERCIAL
    return True
