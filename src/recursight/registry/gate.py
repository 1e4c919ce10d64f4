"""The rule that decides whether a challenger replaces the champion, from the scores of both on the test split.

docs/gate.md explains the rule and its error rates.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

from recursight.evaluation import improvement
from recursight.params import Gate
from recursight.tasks import Metric, Task

if TYPE_CHECKING:
    from pandas import DataFrame

NAMED = 3  # slices in a sentence


@dataclass(frozen=True)
class Scored:
    """A version's scores on the test split.

    Attributes:
        version: in the registry.
        rows: from `Task.score`, one per example.
        cost: number of parameters, or milliseconds per image, depending on gate.cost in params.yaml.
    """

    version: int
    rows: "DataFrame"
    cost: float


@dataclass(frozen=True)
class Verdict:
    """The outcome of the rule.

    Attributes:
        promote: whether the challenger becomes champion.
        reason: the evidence in favour, or everything against it.
        numbers: the measurements behind the reason.
    """

    promote: bool
    reason: str
    numbers: dict[str, Any]


def level_of(gate: Gate, look: int) -> float:
    """The significance level for the n-th challenger of one champion.

    If shared, the levels are level / (n (n + 1)) = level/2, level/6, level/12, ..., whose sum is the level. So with any
    number of challengers, the probability of promoting one that is no better stays below it (by Bonferroni's
    inequality, however the challengers depend on each other; alpha spending after Foster and Stine, 2008).

    Args:
        gate: the section of params.yaml.
        look: n, from 1.
    """
    return gate.level / (look * (look + 1)) if gate.looks == "shared" else gate.level


def judge(
    gate: Gate,
    task: Task,
    minimums: Mapping[str, float],
    challenger: Scored,
    champion: Scored | None,
    look: int = 1,
) -> Verdict:
    """Applies the rule.

    Args:
        gate: the section of params.yaml.
        task: that scored both.
        minimums: that any champion must reach, by metric.
        challenger: its scores.
        champion: its scores on the same examples; None if there is no champion, so that only the minimums count.
        look: number of challengers tested against this champion, including this one.
    """
    metric = task.metrics[gate.metric] if gate.metric else task.default
    named = dict.fromkeys([metric.name, *minimums])
    numbers: dict[str, Any] = {"examples": len(challenger.rows), "challenger": _figures(gate, task, named, challenger)}
    faults = missed_minimums(task, minimums, challenger.rows)
    if champion is None:
        return Verdict(
            not faults, _sentence(faults or ["the first version to reach the minimums in params.yaml"]), numbers
        )
    numbers["champion"] = _figures(gate, task, named, champion)
    faults += _slice_losses(gate, task, challenger, champion, numbers)
    evidence = _compare(gate, metric, challenger, champion, numbers)
    numbers |= {"level": level_of(gate, look), "look": look}
    test = f"p = {numbers['p_value']:.2g}, level {numbers['level']:.2g}"
    if numbers["p_value"] > numbers["level"]:
        what = "better" if gate.mode == "better" else f"not worse by {gate.margin:g}"
        faults.append(f"it is not shown to be {what} in {metric.name}: {evidence} ({test})")
    costs = _costs(gate, challenger, champion)
    if gate.mode == "cheaper" and challenger.cost > champion.cost * (1 - gate.saving):
        faults.append(f"it is not cheaper by {gate.saving:.0%} (gate.saving): {costs}")
    if faults:
        return Verdict(False, _sentence(faults), numbers)
    return Verdict(
        True, _sentence([f"{evidence} ({test})", *[f"cheaper: {costs}"] * (gate.mode == "cheaper")]), numbers
    )


def missed_minimums(task: Task, minimums: Mapping[str, float], rows: "DataFrame") -> list[str]:
    """A sentence for each minimum that these scores miss."""
    faults = []
    for name, minimum in minimums.items():
        metric = task.metrics[name]
        value = metric.value(rows)
        if not metric.reaches(value, minimum):
            of = f" ({metric.detail(rows)})" if metric.detail else ""
            side = "below" if metric.higher_is_better else "above"
            faults.append(
                f"{metric.title}{of}, {metric.text(value)}, is {side} {metric.text(minimum)} (registry.minimums.{name})"
            )
    return faults


def _figures(gate: Gate, task: Task, names: Iterable[str], scored: Scored) -> dict[str, Any]:
    values = {name: task.metrics[name].value(scored.rows) for name in names}
    return {
        "version": scored.version,
        **{name: value if isfinite(value) else None for name, value in values.items()},
        gate.cost: scored.cost,
    }


def _slice_losses(gate: Gate, task: Task, challenger: Scored, champion: Scored, numbers: dict[str, Any]) -> list[str]:
    """Slices that lose more than allowed. One lost example is always allowed: in a small slice it is a large share."""
    now, before = task.slices(challenger.rows), task.slices(champion.rows)
    if now is None or before is None:
        return []
    now.index, before.index = now.index.astype(str), before.index.astype(str)  # vocabularies may differ in order
    lost = before["hits"] - now["hits"]
    share = (lost / now["count"]).sort_values(ascending=False, kind="stable")
    numbers |= {"largest_slice_loss": float(share.iloc[0]), "largest_slice_loss_of": share.index[0]}
    over = [name for name in share.index if share[name] > gate.maximum_slice_loss and lost[name] > 1]
    if not over:
        return []
    named = [
        f"{name!r} from {100 * before['hits'][name] / before['count'][name]:.2f} % to "
        f"{100 * now['hits'][name] / now['count'][name]:.2f} %"
        for name in over[:NAMED]
    ]
    more = f" and {len(over) - NAMED} more" if len(over) > NAMED else ""
    return [
        f"the share of right examples falls by more than {gate.maximum_slice_loss:g} (gate.maximum_slice_loss) in "
        f"{', '.join(named)}{more}"
    ]


def _compare(gate: Gate, metric: Metric, challenger: Scored, champion: Scored, numbers: dict[str, Any]) -> str:
    """Tests the metric, adds to the numbers, and describes the evidence."""
    margin = gate.margin if gate.mode == "cheaper" else 0.0
    new, old = metric.value(challenger.rows), metric.value(champion.rows)
    numbers["gain"] = metric.gain(new, old)
    seen = f"{metric.text(new)} against {metric.text(old)}"
    count = len(challenger.rows)
    if not metric.right:
        drawing = {"samples": gate.bootstrap_samples, "seed": gate.seed}
        resampled = improvement.gain_resamples(metric, champion.rows, challenger.rows, **drawing)
        numbers["p_value"] = improvement.bootstrap_better(numbers["gain"], resampled, margin)
        return f"{seen} on {count:,} examples"
    right, before = (scored.rows[metric.right].to_numpy(dtype=bool) for scored in (challenger, champion))
    gained, lost = int((right & ~before).sum()), int((before & ~right).sum())
    numbers |= {"gained": gained, "lost": lost}
    numbers["p_value"] = (
        improvement.share_not_worse(before, right, margin) if margin else improvement.mcnemar_better(before, right)
    )
    return f"{seen}; of {count:,} examples, {gained} newly right, {lost} newly wrong"


def _costs(gate: Gate, challenger: Scored, champion: Scored) -> str:
    if gate.cost == "parameters":
        return f"{challenger.cost:,.0f} parameters against {champion.cost:,.0f}"
    return f"{challenger.cost:.2f} ms an image against {champion.cost:.2f}"


def _sentence(parts: list[str]) -> str:
    return "; ".join(parts) + "."
