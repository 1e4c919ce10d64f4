"""Sections of params.yaml for registration, promotion, retraining, serving and monitoring."""

from datetime import UTC, datetime
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pydantic import AfterValidator, Field, field_validator

from recursight.errors import nearest
from recursight.params.section import Fraction, Positive, Section, Seed

NOT_IN_NAMES = set("/:\\%'\"`")  # MLflow refuses some of these in names, or reads them as part of a URI or a filter


def _is_cron(cron: str) -> str:
    from cronsim import CronSim, CronSimError

    fields = cron.split()
    if len(fields) == 6:  # Prefect reads seconds from the last field, cronsim from the first
        fields = [fields[5], *fields[:5]]
    try:
        CronSim(" ".join(fields), datetime.now(UTC))
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
    """Where the winner is registered, and what a champion must reach on the test split.

    Attributes:
        model_name: name of the registered model in MLflow.
        experiment: name of the MLflow experiment that holds the runs.
        minimums: values to reach, by metric of the task; they replace or extend the task's own. For a metric where
            lower is better, it is a maximum.
    """

    model_name: Title = "recursight"
    experiment: Title = "recursight"
    minimums: dict[str, float] = {}


class Gate(Section):
    """What a challenger must achieve on the test split to replace the champion; docs/gate.md gives the reasons.

    Attributes:
        mode: `better`, or `cheaper`: no worse by `margin`, and cheaper by at least `saving`.
        metric: the metric of the task to compare; default: its first one. A share of right examples is tested exactly,
            any other metric by paired bootstrap.
        level: significance level: maximum probability of promoting a challenger that is no better (in mode cheaper:
            worse by `margin`).
        looks: `shared`: the level holds for all challengers of one champion together; `single`: for each of them.
        maximum_slice_loss: by which the share of right examples may fall in any slice of the test split, such as a
            class.
        margin: loss in the metric that mode cheaper tolerates.
        cost: what must decrease: `parameters`, or `latency` of one image, measured on this machine.
        saving: minimum relative reduction of the cost.
        bootstrap_samples: number of bootstrap samples.
        seed: random seed of the bootstrap.
    """

    mode: Literal["better", "cheaper"] = "better"
    metric: str | None = None
    level: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    looks: Literal["shared", "single"] = "shared"
    maximum_slice_loss: Annotated[float, Field(ge=0, le=1)] = 0.02
    margin: Fraction = 0.002
    cost: Literal["parameters", "latency"] = "parameters"
    saving: Fraction = 0.1
    bootstrap_samples: Annotated[int, Field(ge=100)] = 2000
    seed: Seed = 0


class Scheduled(Section):
    """A flow that Prefect starts on a schedule."""

    schedule: bool = True
    cron: Cron
    timezone: str = "UTC"

    @field_validator("timezone")
    @classmethod
    def is_known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError(f"is not a time zone; {nearest(name, available_timezones())}") from None
        return name


class Retrain(Scheduled):
    """When models are retrained automatically. Applied by `recursight up` and `prefect deploy --all`.

    Attributes:
        schedule: whether the cron is active; events and people can start a retraining in any case.
        cron: minute, hour, day of month, month, day of week.
        timezone: IANA name of the time zone for the cron.
        follow_upstream: whether a scheduled retraining first pulls new commits from the upstream branch; only without
            uncommitted changes and local commits.
    """

    cron: Cron = "0 3 * * *"
    follow_upstream: bool = True


class Serve(Section):
    """Settings and limits of `recursight serve`.

    Attributes:
        poll_seconds: interval between checks of the alias `champion`.
        max_bytes: maximum size of a request body.
        max_pixels: maximum of all images in a request together, as sent; read from their headers before decoding.
        max_images: maximum number of images in a request.
        max_waiting: maximum number of concurrent requests; further ones get status 503.
        batch_images: maximum number of images in a batch of waiting requests.
        threads: CPU threads of the model.
        log_rows: maximum number of predictions in the log, from serving and batch scoring.
        log_folder_rows: approximate maximum per scored folder in the log; a larger folder is sampled at random.
        log_images: whether the log also contains the images.
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
    """How drift is detected, and what follows; see docs/monitoring.md. Schedules are applied as for `Retrain`.

    Attributes:
        schedule: whether the cron is active; `recursight monitor` works in any case.
        cron: minute, hour, day of month, month, day of week.
        timezone: IANA name of the time zone for the cron.
        window_hours: maximum age of a prediction in the window.
        window_rows: maximum number of predictions in the window; the newest ones are used.
        minimum_rows: number of predictions below which no test is made.
        level: significance level: maximum probability of an alarm without drift, over all features together.
        psi_floor: minimum population stability index of a drift.
        repeat_hours: time during which an alarm for the same version is not repeated.
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
