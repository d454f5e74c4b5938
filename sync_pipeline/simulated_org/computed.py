"""Fields that follow from others: they are worked out when a row is read, and only what somebody wrote is kept of them.

Opportunity: https://developer.salesforce.com/docs/atlas.en-us.object_reference.meta/object_reference/sforce_api_objects_opportunity.htm
Fiscal years of an org begin in January unless somebody sets them otherwise; here nobody does. A forecast category that
somebody wrote stays when the stage changes: what becomes of it then is in no document.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import polars as pl

FORECASTS: Final[Mapping[str, str]] = {"Closed Won": "Closed", "Closed Lost": "Omitted"}
"""Name of the forecast category that a stage stands for; of any other stage it is the pipeline."""
CATEGORIES: Final[Mapping[str, str]] = {
    "Best Case": "BestCase", "Closed": "Closed", "Commit": "Forecast", "Most Likely": "MostLikely", "Omitted": "Omitted",
    "Pipeline": "Pipeline",
}  # fmt: skip
"""Forecast categories by name."""


@dataclass(frozen=True)
class Computed:
    """What a field is worked out of."""

    inputs: tuple[str, ...]
    value: pl.Expr


def _year() -> pl.Expr:
    return pl.col("CloseDate").dt.year()


def _quarter() -> pl.Expr:
    return pl.col("CloseDate").dt.quarter()


def _forecast() -> pl.Expr:
    """The name that somebody wrote, else that of the category which the stage stands for; nothing without a stage."""
    stage = pl.col("StageName")
    implied = stage.replace_strict(FORECASTS, default="Pipeline", return_dtype=pl.String)
    return pl.coalesce("ForecastCategoryName", pl.when(stage.is_not_null()).then(implied))


COMPUTED: Final[Mapping[str, Mapping[str, Computed]]] = {
    "Opportunity": {
        "Fiscal": Computed(("CloseDate",), pl.format("{} {}", _year(), _quarter())),
        "FiscalYear": Computed(("CloseDate",), _year().cast(pl.Float64)),
        "FiscalQuarter": Computed(("CloseDate",), _quarter().cast(pl.Float64)),
        "ForecastCategory": Computed(
            ("StageName", "ForecastCategoryName"),
            _forecast().replace_strict(CATEGORIES, default=None, return_dtype=pl.String),
        ),
        "ForecastCategoryName": Computed(("StageName", "ForecastCategoryName"), _forecast()),
    }
}
"""By object and field."""


def is_stored(sobject: str, field: str) -> bool:
    """Whether the rows of an object hold that field."""
    found = COMPUTED.get(sobject, {}).get(field)
    return found is None or field in found.inputs


def inputs_of(sobject: str, fields: Iterable[str]) -> list[str]:
    """The stored fields that these are made of, each once."""
    known = COMPUTED.get(sobject, {})
    return list(
        dict.fromkeys(name for field in fields for name in (known[field].inputs if field in known else (field,)))
    )


def with_computed(sobject: str, frame: pl.DataFrame, fields: Iterable[str]) -> pl.DataFrame:
    """The fields in this order, out of a frame that holds their inputs."""
    known = COMPUTED.get(sobject, {})
    return frame.select(known[field].value.alias(field) if field in known else pl.col(field) for field in fields)
