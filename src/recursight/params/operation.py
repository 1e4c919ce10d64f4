"""Sections of params.yaml that decide what becomes of a trained model."""

from datetime import UTC, datetime
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pydantic import AfterValidator, Field, field_validator

from recursight.errors import nearest
from recursight.params.section import Fraction, Positive, Section, Seed

NOT_IN_NAMES = set("/:\\%'\"`")  # MLflow refuses some of these in names, or reads them as part of a URI or a filter


def _is_cron(cron: str) -> str:
    from cronsim import CronSim, CronSimError

    try:
        CronSim(cron, datetime.now(UTC))
    except CronSimError as error:
        reason = str(error)
        raise ValueError(f"is no cron expression: {reason[:1].lower()}{reason[1:]}") from None
    return cron


def _is_title(name: str) -> str:
    unusable = sorted({character for character in name if not character.isprintable()} | NOT_IN_NAMES & set(name))
    if unusable:
        raise ValueError(f"a name has printable characters without {''.join(sorted(NOT_IN_NAMES))} only")
    if name != name.strip() or not name:
        raise ValueError("a name is not empty, and begins and ends without spaces")
    return name


Cron = Annotated[str, AfterValidator(_is_cron)]
Title = Annotated[str, Field(max_length=100), AfterValidator(_is_title)]


class Registry(Section):
    """Where the winner goes, and what any champion must reach on the test split.

    Attributes:
        model_name: name of the registered model in MLflow.
        experiment: name of the MLflow experiment that holds the runs.
        minimum_accuracy: test accuracy below which nothing becomes champion.
        minimum_class_recall: the same for the recall of the worst class.
    """

    model_name: Title = "recursight"
    experiment: Title = "recursight"
    minimum_accuracy: Annotated[float, Field(ge=0, le=1)] = 0.9
    minimum_class_recall: Annotated[float, Field(ge=0, le=1)] = 0.5


class Gate(Section):
    """What a challenger must show on the test split to take the champion's place; docs/gate.md has the reasons.

    Attributes:
        mode: `better`, or `cheaper`: not worse by `margin`, and at least `saving` cheaper.
        metric: in which it is better, or not worse. Accuracy is tested exactly, the others by paired bootstrap.
        level: highest chance of promoting a challenger that is no better (in mode cheaper: worse by `margin`).
        looks: `shared`: the level is for all challengers of one champion together; `single`: for each of them.
        maximum_recall_loss: by which the recall of any class may fall.
        margin: of the metric, below which a loss does not count in mode cheaper.
        cost: what must become cheaper: `parameters`, or `latency` of one image, measured on this machine.
        saving: share of the cost that must be saved.
        bootstrap_samples: resamplings behind the test of macro_f1 and log_loss.
        seed: of the resampling.
    """

    mode: Literal["better", "cheaper"] = "better"
    metric: Literal["accuracy", "macro_f1", "log_loss"] = "accuracy"
    level: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    looks: Literal["shared", "single"] = "shared"
    maximum_recall_loss: Annotated[float, Field(ge=0, le=1)] = 0.02
    margin: Fraction = 0.002
    cost: Literal["parameters", "latency"] = "parameters"
    saving: Fraction = 0.1
    bootstrap_samples: Annotated[int, Field(ge=100)] = 2000
    seed: Seed = 0


class Scheduled(Section):
    """Work that Prefect starts by the clock."""

    schedule: bool = True
    cron: Cron
    timezone: str = "UTC"

    @field_validator("timezone")
    @classmethod
    def is_known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError(f"is no timezone; {nearest(name, available_timezones())}") from None
        return name


class Retrain(Scheduled):
    """When models are trained again without anybody asking. Applied by `recursight up` and `prefect deploy --all`.

    Attributes:
        schedule: whether the cron is in force; events and people can start a retraining in any case.
        cron: minute, hour, day of month, month, day of week.
        timezone: of the cron, by its IANA name.
        follow_upstream: whether a scheduled retraining first takes new commits of the branch that this one follows;
            only where nothing is uncommitted and no commit is here alone.
    """

    cron: Cron = "0 3 * * *"
    follow_upstream: bool = True


class Serve(Section):
    """How `recursight serve` answers, and what it refuses.

    Attributes:
        poll_seconds: between two looks at the alias `champion`.
        max_bytes: of one request's body.
        max_pixels: of all images of one request together, as sent; told from their headers, before decoding.
        max_images: in one request.
        max_waiting: requests at work at once; more are turned away with 503.
        batch_images: of requests that wait at the same time, answered together.
        threads: CPU threads of the model.
        log_rows: predictions kept in the log, of served and batch-scored images.
        log_folder_rows: of one scored folder in the log, about; where it has more, they are drawn at random.
        log_images: whether the log keeps the images too.
    """

    poll_seconds: Annotated[float, Field(gt=0)] = 5
    max_bytes: Positive = 16_000_000
    max_pixels: Positive = 50_000_000
    max_images: Positive = 256
    max_waiting: Positive = 128
    batch_images: Positive = 64
    threads: Positive = 1
    log_rows: Positive = 1_000_000
    log_folder_rows: Positive = 10_000
    log_images: bool = False


class Monitor(Scheduled):
    """How drift is looked for, and what follows; docs/monitoring.md has the reasons. Schedules apply as for `Retrain`.

    Attributes:
        schedule: whether the cron is in force; `recursight monitor` works in any case.
        cron: minute, hour, day of month, month, day of week.
        timezone: of the cron, by its IANA name.
        window_hours: age of the oldest prediction that is looked at.
        window_rows: predictions that are looked at, at most; the newest ones.
        minimum_rows: below which nothing is said.
        level: highest chance of an alarm on a window without drift, over all features together.
        psi_floor: population stability index that a drift has at least.
        repeat_hours: in which an alarm for the same version is not repeated.
        retrain: whether an alarm starts a retraining.
    """

    cron: Cron = "0 */6 * * *"
    window_hours: Annotated[float, Field(gt=0)] = 24
    window_rows: Positive = 10_000
    minimum_rows: Annotated[int, Field(ge=50)] = 200
    level: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    psi_floor: Annotated[float, Field(ge=0)] = 0.1
    repeat_hours: Annotated[float, Field(ge=0)] = 24
    retrain: bool = True
