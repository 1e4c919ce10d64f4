"""Assigns images to splits: the source's splits are kept, missing ones are taken from its training images.

Every split gets its share of each stratum, which is a class, or all images if a task has no classes. A stream with
events belongs to the strata of all their labels.

Images that must stay together (identical pixels, or one group) form a unit, and a unit is in one split. The order of
units depends only on their pixels and the seed, so that adding images moves few others to another split.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from recursight.data.records import LEFT_OUT, SPLITS
from recursight.errors import InputError

NAMES = (*SPLITS, LEFT_OUT)
TRAIN, VALIDATION, TEST, OUT = range(4)
UNSAID = -1


@dataclass(frozen=True)
class Strata:
    """To which strata each example belongs.

    Attributes:
        values: numbers of strata, those of all examples one after another.
        counts: number of strata of each example; None for one each.
    """

    values: np.ndarray
    counts: np.ndarray | None = None

    def of(self, members: np.ndarray) -> np.ndarray:
        """Strata of some examples, one after another."""
        if self.counts is None:
            chosen: np.ndarray = self.values[members]
            return chosen
        starts = self._ends[members] - self.counts[members]
        parts = [self.values[start : start + count] for start, count in zip(starts, self.counts[members], strict=True)]
        return np.concatenate([*parts, np.empty(0, np.int64)]).astype(np.int64)

    @cached_property
    def examples(self) -> np.ndarray:
        """The example that each of `values` belongs to."""
        return (
            np.arange(len(self.values)) if self.counts is None else np.repeat(np.arange(len(self.counts)), self.counts)
        )

    @cached_property
    def single(self) -> np.ndarray:
        """Whether each example has exactly one stratum."""
        return np.ones(len(self.values), bool) if self.counts is None else self.counts == 1

    @cached_property
    def _ends(self) -> np.ndarray:
        assert self.counts is not None
        return np.cumsum(self.counts)


def assign(
    strata: Strata,
    official: np.ndarray,
    units: np.ndarray,
    sha256: np.ndarray,
    *,
    names: tuple[str, ...],
    validation: float,
    test: float,
    seed: int,
) -> np.ndarray:
    """Assigns a split to every image.

    Args:
        strata: of N images, as indices into `names`.
        official: N splits as indices into `NAMES`, or `UNSAID`.
        units: N numbers from 0 on; images with the same number stay together.
        sha256: (N, 32) uint8, of the pixels.
        names: of the strata, for error messages.
        validation: share of the training images, if the source has no validation split.
        test: share of all images, if the source has no test split.
        seed: of the order of units.

    Returns:
        int8, N indices into `NAMES`. If the source puts a unit into several splits, its images in the test split (else
        in the validation split) stay there, and the others are left out, since training on them would be leakage.

    Raises:
        InputError: if a stratum has too few images, or groups, to have one in each split.
    """
    splits = np.where(official == UNSAID, TRAIN, official).astype(np.int8)
    wanted = [split for split in (VALIDATION, TEST) if not (official == split).any()]
    if not (splits == TRAIN).any():
        raise InputError("the data has no training images: all of them belong to the validation or test split.")
    highest = np.full(units.max() + 1, TRAIN, np.int8)
    np.maximum.at(highest, units, splits)
    splits[splits < highest[units]] = OUT

    pool = np.flatnonzero(splits == TRAIN)
    _require_enough(strata, units, pool, wanted, names)
    if wanted:
        totals, available = (
            np.bincount(strata.of(rows), minlength=len(names)) for rows in (np.flatnonzero(splits != OUT), pool)
        )
        targets = _targets(totals, available, wanted, validation, test)
        chosen = Strata(strata.of(pool), None if strata.counts is None else strata.counts[pool])
        splits[pool] = _carve(chosen, _renumbered(units[pool]), _keys(sha256[pool], seed), targets)
        _require_every_stratum(strata, splits, wanted, names)
    return splits


def units_of(sha256: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Numbers the sets of images that must stay together: connected by equal sha256 or group (below 0: none)."""
    identical = identity(sha256)
    if (groups < 0).all():
        return identical
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    grouped = np.flatnonzero(groups >= 0)
    offset = identical.max() + 1
    nodes = int(offset + groups.max() + 1)
    edges = (np.ones(len(grouped), np.int8), (identical[grouped], offset + groups[grouped]))
    _, component = connected_components(coo_array(edges, shape=(nodes, nodes)), directed=False)
    return _renumbered(component[identical])


def identity(sha256: np.ndarray) -> np.ndarray:
    """Numbers from 0 on, equal where the (N, 32) hashes are."""
    words = np.ascontiguousarray(sha256).view(np.uint64)
    order = np.lexsort(words.T)
    ordered = words[order]
    numbers = np.empty(len(words), np.int64)
    numbers[order] = np.cumsum(np.r_[False, (ordered[1:] != ordered[:-1]).any(axis=1)])
    return numbers


def _renumbered(numbers: np.ndarray) -> np.ndarray:
    return np.unique(numbers, return_inverse=True)[1]


def _keys(sha256: np.ndarray, seed: int) -> np.ndarray:
    """A random-looking uint64 for each image, by the finaliser of SplitMix64 (Steele et al., 2014)."""
    key = np.ascontiguousarray(sha256[:, :8]).view(np.uint64).ravel() + np.uint64((seed * 0x9E3779B97F4A7C15) % 2**64)
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))


def _targets(totals: np.ndarray, pool: np.ndarray, wanted: list[int], validation: float, test: float) -> np.ndarray:
    """(3, strata): images of each stratum that each split takes from the pool; at least one for wanted splits."""
    targets = np.zeros((3, len(pool)), np.int64)
    if TEST in wanted:
        targets[TEST] = np.clip(np.rint(totals * test), 1, pool - len(wanted))
    if VALIDATION in wanted:
        targets[VALIDATION] = np.clip(np.rint((pool - targets[TEST]) * validation), 1, pool - targets[TEST] - 1)
    targets[TRAIN] = pool - targets[TEST] - targets[VALIDATION]
    return targets


def _carve(strata: Strata, units: np.ndarray, keys: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Distributes units: first large ones, each to the split that lacks most; then single images fill the rest."""
    splits = np.full(len(units), TRAIN, np.int8)
    missing = targets.copy()
    alone = (np.bincount(units)[units] == 1) & strata.single
    for members in _large_units(units, alone, keys):
        counts = np.bincount(strata.of(members), minlength=targets.shape[1])
        gain = (missing * (counts / targets.sum(axis=0))).sum(axis=1)
        open_splits = np.flatnonzero(targets.any(axis=1))
        split = open_splits[np.argmax(gain[open_splits])]
        missing[split] -= counts
        splits[members] = split
    singles = np.flatnonzero(alone)
    singles = singles[np.lexsort((keys[singles], strata.of(singles)))]
    bounds = np.searchsorted(strata.of(singles), np.arange(targets.shape[1] + 1))
    for stratum, wanted in enumerate(missing.T):
        rest = singles[bounds[stratum] : bounds[stratum + 1]]
        for split in (TEST, VALIDATION):
            take = int(np.clip(wanted[split], 0, len(rest)))
            splits[rest[:take]] = split
            rest = rest[take:]
    _give_every_split_every_stratum(strata, units, splits, targets)
    return splits


def _large_units(units: np.ndarray, alone: np.ndarray, keys: np.ndarray) -> list[np.ndarray]:
    """The images of each unit of two or more, or of several strata; the largest unit first, then by smallest key."""
    rows = np.flatnonzero(~alone)
    rows = rows[np.lexsort((keys[rows], units[rows]))]
    members = np.split(rows, np.flatnonzero(np.diff(units[rows])) + 1) if len(rows) else []
    return sorted(members, key=lambda member: (-len(member), int(keys[member[0]])))


def _give_every_split_every_stratum(strata: Strata, units: np.ndarray, splits: np.ndarray, targets: np.ndarray) -> None:
    """Moves the smallest unit that another split can spare to each split that lacks a stratum."""
    counts = np.zeros_like(targets)
    np.add.at(counts, (splits[strata.examples], strata.values), 1)
    for split, stratum in np.argwhere((targets > 0) & (counts == 0)):
        if counts[split, stratum]:
            continue  # a unit that was moved for another stratum had this one too
        candidates = [
            np.flatnonzero(units == unit) for unit in np.unique(units[strata.examples[strata.values == stratum]])
        ]
        for members in sorted(candidates, key=len):
            unit = np.bincount(strata.of(members), minlength=targets.shape[1])
            donor = splits[members[0]]
            if donor != split and (counts[donor] - unit >= ((unit > 0) & (targets[donor] > 0))).all():
                counts[donor] -= unit
                counts[split] += unit
                splits[members] = split
                break


def _require_enough(
    strata: Strata, units: np.ndarray, pool: np.ndarray, wanted: list[int], names: tuple[str, ...]
) -> None:
    """Each stratum needs a unit for train and one for each split that is taken from it."""
    is_in_pool = np.zeros(len(units), bool)
    is_in_pool[pool] = True
    in_pool = is_in_pool[strata.examples]
    pairs = np.unique(np.stack([strata.values[in_pool], units[strata.examples[in_pool]]]), axis=1)
    units_of_stratum = np.bincount(pairs[0], minlength=len(names))
    needed = 1 + len(wanted)
    splits = " and ".join(NAMES[split] for split in (TRAIN, *wanted))
    few = [f"{names[stratum]!r} ({units_of_stratum[stratum]})" for stratum in np.flatnonzero(units_of_stratum < needed)]
    if few:
        raise InputError(
            f"too few different images or groups to split into {splits}: {', '.join(few)}; each needs {needed} or more."
        )


def _require_every_stratum(strata: Strata, splits: np.ndarray, wanted: list[int], names: tuple[str, ...]) -> None:
    for split in (TRAIN, *wanted):
        absent = np.setdiff1d(np.arange(len(names)), strata.of(np.flatnonzero(splits == split)))
        if len(absent):
            listed = ", ".join(repr(names[stratum]) for stratum in absent)
            raise InputError(
                f"the groups leave no way to give the {NAMES[split]} split images of {listed}; use smaller groups."
            )
