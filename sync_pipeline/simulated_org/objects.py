"""Which objects the org has, and what their fields are: what describe answers and what saving checks.

sObject Describe: https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_sobject_describe.htm
Opportunity: https://developer.salesforce.com/docs/atlas.en-us.object_reference.meta/object_reference/sforce_api_objects_opportunity.htm

Knobs: ``fields`` changes attributes of single fields (``{"Opportunity.External_ID__c": {"unique": false}}``), ``objects``
adds custom objects (``{"Visit__c": {"label": "Visit", "fields": {"Key__c": {"type": "string", …}}}}``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

import polars as pl

from sync_pipeline.simulated_org.computed import CATEGORIES, is_stored
from sync_pipeline.simulated_org.state import Org

NUMBERS: Final = ("currency", "double", "percent", "int")
DTYPES: Final[Mapping[str, pl.DataType]] = {
    **dict.fromkeys(NUMBERS, pl.Float64()),
    "boolean": pl.Boolean(),
    "date": pl.Date(),
    "datetime": pl.Datetime("ms", "UTC"),
}
"""How values are kept, by field type; everything else is text."""


@dataclass(frozen=True)
class Field:
    """One field as describe shows it. ``digits`` is the length of an int, ``length`` that of a text.

    An auto-number and a formula can only be read; nothing works their values out.
    """

    name: str
    type: str
    label: str = ""
    length: int = 0
    precision: int = 0
    scale: int = 0
    digits: int = 0
    nillable: bool = True
    createable: bool = True
    updateable: bool = True
    defaulted_on_create: bool = False
    external_id: bool = False
    id_lookup: bool = False
    unique: bool = False
    case_sensitive: bool = False
    restricted_picklist: bool = False
    auto_number: bool = False
    calculated: bool = False
    rich_text: bool = False
    picklist: tuple[str, ...] = ()
    reference_to: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.auto_number or self.calculated:
            object.__setattr__(self, "createable", False)
            object.__setattr__(self, "updateable", False)

    @property
    def dtype(self) -> pl.DataType:
        return DTYPES.get(self.type, pl.String())

    @property
    def is_required(self) -> bool:
        """A create without it is refused."""
        return self.createable and not self.nillable and not self.defaulted_on_create and self.type != "boolean"


@dataclass(frozen=True)
class SObject:
    """One object and its fields by API name."""

    name: str
    label: str
    prefix: str
    fields: Mapping[str, Field] = field(default_factory=dict)

    @cached_property
    def _by_lower(self) -> dict[str, Field]:
        return {name.lower(): found for name, found in self.fields.items()}

    @cached_property
    def schema(self) -> dict[str, pl.DataType]:
        """Columns of the object's rows as they are read."""
        return {name: found.dtype for name, found in self.fields.items()}

    @cached_property
    def stored(self) -> dict[str, pl.DataType]:
        """Columns of the object's rows as they are kept: without those that follow from others."""
        return {name: dtype for name, dtype in self.schema.items() if is_stored(self.name, name)}

    @cached_property
    def key(self) -> Field | None:
        """The external id by whose order the rows are kept."""
        return next((found for found in self.fields.values() if found.external_id), None)

    def find(self, name: str) -> Field | None:
        """The field of that API name, whatever its letter case."""
        return self._by_lower.get(name.lower())


def _fixed(name: str, kind: str, label: str, **attributes: Any) -> Field:
    return Field(
        name, kind, label, nillable=False, createable=False, updateable=False, defaulted_on_create=True, **attributes
    )


USER: Final[Mapping[str, Any]] = {"length": 18, "reference_to": ("User",)}
SYSTEM: Final = (
    _fixed("Id", "id", "Record ID", length=18, id_lookup=True),
    _fixed("IsDeleted", "boolean", "Deleted"),
    Field("OwnerId", "reference", "Owner ID", nillable=False, defaulted_on_create=True, **USER),
    _fixed("CreatedDate", "datetime", "Created Date"),
    _fixed("CreatedById", "reference", "Created By ID", **USER),
    _fixed("LastModifiedDate", "datetime", "Last Modified Date"),
    _fixed("LastModifiedById", "reference", "Last Modified By ID", **USER),
    _fixed("SystemModstamp", "datetime", "System Modstamp"),
)


def _object(name: str, label: str, prefix: str, *fields: Field) -> SObject:
    listed = (*SYSTEM, *fields)
    return SObject(name, label, prefix, {found.name: found if found.label else _labelled(found) for found in listed})


def _labelled(found: Field) -> Field:
    return replace(found, label=found.name.removesuffix("__c").replace("_", " "))


def _readable(name: str, kind: str = "string", **attributes: Any) -> Field:
    return Field(name, kind, createable=False, updateable=False, **attributes)


STAGES: Final = (
    "Prospecting", "Qualification", "Needs Analysis", "Value Proposition", "Id. Decision Makers", "Perception Analysis",
    "Proposal/Price Quote", "Negotiation/Review", "Closed Won", "Closed Lost",
)  # fmt: skip

LEAD_SOURCES: Final = ("Web", "Phone Inquiry", "Partner Referral", "Purchased List", "Other")

STANDARD: Final[tuple[SObject, ...]] = (
    _object(
        "Opportunity", "Opportunity", "006",
        Field("External_ID__c", "string", "External ID", length=255, external_id=True, id_lookup=True, unique=True),
        Field("Name", "string", "Name", length=120, nillable=False),
        Field("StageName", "picklist", "Stage", length=255, nillable=False, restricted_picklist=True, picklist=STAGES),
        Field("CloseDate", "date", "Close Date", nillable=False),
        Field("Amount", "currency", "Amount", precision=18, scale=2),
        Field("AccountId", "reference", "Account ID", length=18, reference_to=("Account",)),
        Field("Description", "textarea", "Description", length=32_000),
        Field("Type", "picklist", "Opportunity Type", length=255, picklist=("Existing Business", "New Business")),
        Field("NextStep", "string", "Next Step", length=255),
        Field("LeadSource", "picklist", "Lead Source", length=255, picklist=LEAD_SOURCES),
        Field(
            "ForecastCategoryName", "picklist", "Forecast Category", length=255, defaulted_on_create=True,
            restricted_picklist=True, picklist=tuple(CATEGORIES),
        ),
        _readable(
            "ForecastCategory", "picklist", length=40, nillable=False, restricted_picklist=True,
            picklist=tuple(CATEGORIES.values()),
        ),
        _readable("Fiscal", length=6),
        _readable("FiscalYear", "int", digits=9),
        _readable("FiscalQuarter", "int", digits=9),
        Field("Probability", "percent", "Probability (%)", precision=3, defaulted_on_create=True),
        Field("TotalOpportunityQuantity", "double", "Quantity", precision=18, scale=2),
        _readable("ExpectedRevenue", "currency", precision=18, scale=2),
        _readable("IsClosed", "boolean", nillable=False, defaulted_on_create=True),
        _readable("IsWon", "boolean", nillable=False, defaulted_on_create=True),
    ),
    _object(
        "Account", "Account", "001",
        Field("External_ID__c", "string", "External ID", length=255, external_id=True, id_lookup=True, unique=True),
        Field("Name", "string", "Account Name", length=255, nillable=False),
        Field("Industry", "picklist", "Industry", length=255),
    ),
    _object(
        "User", "User", "005",
        Field("Username", "string", length=80, nillable=False),
        Field("Name", "string", length=121),
        Field("FirstName", "string", length=40),
        Field("LastName", "string", length=80),
        Field("Alias", "string", length=8),
        Field("CommunityNickname", "string", length=40),
        Field("Email", "email", length=128),
        Field("IsActive", "boolean", nillable=False, defaulted_on_create=True),
        Field("ProfileId", "reference", "Profile ID", length=18, reference_to=("Profile",)),
        Field("TimeZoneSidKey", "picklist", "Time Zone", length=40),
        Field("LocaleSidKey", "picklist", "Locale", length=40),
        Field("LanguageLocaleKey", "picklist", "Language", length=40),
        _readable("UserType", "picklist", length=40),
    ),
    _object(
        "Profile", "Profile", "00e",
        _readable("Name", length=255),
        _readable("UserType", "picklist", length=40),
    ),
    _object(
        "Organization", "Organization", "00D",
        _readable("Name", length=80),
        _readable("OrganizationType", "picklist", length=40),
        _readable("IsSandbox", "boolean"),
        _readable("InstanceName", length=5),
        _readable("TrialExpirationDate", "datetime"),
        _readable("NamespacePrefix", length=15),
        _readable("LanguageLocaleKey", "picklist", length=40),
    ),
    _object(
        "OpportunityStage", "Opportunity Stage", "01J",
        _readable("MasterLabel", length=255),
        _readable("ApiName", length=255),
        _readable("IsActive", "boolean"),
        _readable("IsClosed", "boolean"),
        _readable("IsWon", "boolean"),
        _readable("SortOrder", "int", digits=9),
        _readable("DefaultProbability", "percent", precision=3),
    ),
    _object(
        "CronTrigger", "Scheduled Jobs", "08e",
        _readable("State", length=255),
        _readable("NextFireTime", "datetime"),
        _readable("CronExpression", length=255),
        _readable("CronJobDetail.Name", length=255),
        _readable("CronJobDetail.JobType", length=255),
    ),
    _object(
        "AsyncApexJob", "Apex Job", "707",
        _readable("Status", "picklist", length=255),
        _readable("JobType", "picklist", length=255),
        _readable("ApexClass.Name", length=255),
        _readable("NumberOfErrors", "int", digits=9),
    ),
)  # fmt: skip
"""Objects of every org. Names with a dot are fields of a parent that is kept with the row."""


def objects(org: Org) -> dict[str, SObject]:
    """All objects of the org by lower-case API name, with the knobs in force."""
    changes: dict[str, dict[str, Any]] = org.setting("fields", {})
    custom: dict[str, dict[str, Any]] = org.setting("objects", {})
    found = {sobject.name.lower(): sobject for sobject in STANDARD}
    for place, (name, given) in enumerate(sorted(custom.items())):
        made = (Field(field_name, **attributes) for field_name, attributes in given["fields"].items())
        found[name.lower()] = _object(name, given.get("label", name), f"a{place:02d}", *made)
    for path, attributes in changes.items():
        object_name, _, field_name = path.partition(".")
        sobject = found[object_name.lower()]
        fields = dict(sobject.fields)
        if attributes.get("hidden"):  # no field-level security: the field is simply not there
            fields.pop(field_name, None)
        else:
            known = fields.get(field_name) or Field(field_name, attributes.get("type", "string"))
            named: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in attributes.items()}
            fields[field_name] = replace(known, **named)
        found[object_name.lower()] = replace(sobject, fields=fields)
    return found


def find_object(org: Org, name: str) -> SObject | None:
    """The object of that API name, whatever its letter case."""
    return objects(org).get(name.lower())
