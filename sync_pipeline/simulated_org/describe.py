"""What the org says of its objects: the list of all, the basic information of one, and describe.

Describe Global: https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_describeGlobal.htm
sObject Basic Information: https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_sobject_basic_info.htm
sObject Describe: https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_sobject_describe.htm
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sync_pipeline.simulated_org.objects import NUMBERS, Field, SObject

SOAP_TYPES: Final[Mapping[str, str]] = {
    "id": "tns:ID", "reference": "tns:ID", "boolean": "xsd:boolean", "int": "xsd:int", "currency": "xsd:double",
    "double": "xsd:double", "percent": "xsd:double", "date": "xsd:date", "datetime": "xsd:dateTime",
}  # fmt: skip
LONG_TEXT: Final = 255
"""A text area longer than this can be read, but not filtered, sorted or grouped by."""
AREAS: Final = ("plaintextarea", "richtextarea")
"""What describe says of a text area: plain text, or markup."""
LOADED_BY_NOBODY: Final = ("Organization", "Profile", "OpportunityStage", "CronTrigger", "AsyncApexJob")
"""Objects whose rows the org itself keeps."""


def is_custom(name: str) -> bool:
    return name.endswith("__c")


def is_long_text(found: Field) -> bool:
    """Whether the field cannot be filtered, sorted or grouped by."""
    return found.type == "textarea" and found.length > LONG_TEXT


def plural(label: str) -> str:
    return f"{label[:-1]}ies" if label.endswith("y") else f"{label}s"


def relationship_name(found: Field) -> str | None:
    """What a query calls the parent that a reference field leads to: ``AccountId`` leads to ``Account``."""
    if found.type != "reference":
        return None
    return f"{found.name[:-1]}r" if is_custom(found.name) else found.name.removesuffix("Id")


def described_object(sobject: SObject, *, root: str) -> dict[str, Any]:
    """The object without its fields. ``root`` is the path of the API version."""
    is_writable = sobject.name not in LOADED_BY_NOBODY
    path = f"{root}/sobjects/{sobject.name}"
    return {
        "activateable": False,
        "associateEntityType": None,
        "associateParentEntity": None,
        "createable": is_writable,
        "custom": is_custom(sobject.name),
        "customSetting": False,
        "deepCloneable": False,
        "deletable": is_writable,
        "deprecatedAndHidden": False,
        "feedEnabled": False,
        "hasSubtypes": False,
        "isInterface": False,
        "isSubtype": False,
        "keyPrefix": sobject.prefix,
        "label": sobject.label,
        "labelPlural": plural(sobject.label),
        "layoutable": is_writable,
        "mergeable": False,
        "mruEnabled": is_writable,
        "name": sobject.name,
        "queryable": True,
        "replicateable": True,
        "retrieveable": True,
        "searchable": is_writable,
        "triggerable": is_writable,
        "undeletable": False,
        "updateable": is_writable,
        "urls": {
            "rowTemplate": f"{path}/{{ID}}",
            "describe": f"{path}/describe",
            "sobject": path,
        },
    }


def described(sobject: SObject, *, root: str) -> dict[str, Any]:
    """The object with its fields; what is kept of a parent is no field of it."""
    return {
        **described_object(sobject, root=root),
        "actionOverrides": [],
        "childRelationships": [],
        "compactLayoutable": False,
        "fields": [described_field(found) for name, found in sobject.fields.items() if "." not in name],
        "namedLayoutInfos": [],
        "networkScopeFieldName": None,
        "recordTypeInfos": [
            {
                "active": True,
                "available": True,
                "defaultRecordTypeMapping": True,
                "developerName": "Master",
                "master": True,
                "name": "Master",
                "recordTypeId": "012000000000000AAA",
                "urls": {"layout": f"{root}/sobjects/{sobject.name}/describe/layouts/012000000000000AAA"},
            }
        ],
        "supportedScopes": [{"label": f"All {sobject.label}", "name": "everything"}],
    }


def described_field(found: Field) -> dict[str, Any]:
    """One field of describe."""
    is_number = found.type in NUMBERS
    is_long = is_long_text(found)
    is_groupable = not is_long and found.type not in ("currency", "double", "percent", "datetime")
    return {
        "aggregatable": not is_long and found.type != "boolean",
        "aiPredictionField": False,
        "autoNumber": found.auto_number,
        "byteLength": found.length * 3 if found.type not in ("id", "reference") else found.length,
        "calculated": found.calculated,
        "calculatedFormula": None,
        "cascadeDelete": False,
        "caseSensitive": found.case_sensitive,
        "compoundFieldName": None,
        "controllerName": None,
        "createable": found.createable,
        "custom": is_custom(found.name),
        "defaultValue": False if found.type == "boolean" else None,
        "defaultValueFormula": None,
        "defaultedOnCreate": found.defaulted_on_create,
        "dependentPicklist": False,
        "deprecatedAndHidden": False,
        "digits": (found.digits or 9) if found.type == "int" else 0,
        "displayLocationInDecimal": False,
        "encrypted": False,
        "externalId": found.external_id,
        "extraTypeInfo": AREAS[found.rich_text] if found.type == "textarea" else None,
        "filterable": not is_long,
        "filteredLookupInfo": None,
        "formulaTreatNullNumberAsZero": False,
        "groupable": is_groupable,
        "highScaleNumber": False,
        "htmlFormatted": found.rich_text,
        "idLookup": found.id_lookup,
        "inlineHelpText": None,
        "label": found.label,
        "length": found.length,
        "mask": None,
        "maskType": None,
        "name": found.name,
        "nameField": found.name == "Name",
        "namePointing": len(found.reference_to) > 1,
        "nillable": found.nillable,
        "permissionable": found.nillable and found.createable,
        "picklistValues": [
            {"active": True, "defaultValue": False, "label": value, "validFor": None, "value": value}
            for value in found.picklist
        ],
        "polymorphicForeignKey": len(found.reference_to) > 1,
        "precision": (found.precision or 18) if is_number and found.type != "int" else 0,
        "queryByDistance": False,
        "referenceTargetField": None,
        "referenceTo": list(found.reference_to),
        "relationshipName": relationship_name(found),
        "relationshipOrder": None,
        "restrictedDelete": False,
        "restrictedPicklist": found.restricted_picklist,
        "scale": found.scale,
        "searchPrefilterable": found.type == "reference",
        "soapType": SOAP_TYPES.get(found.type, "xsd:string"),
        "sortable": not is_long,
        "type": found.type,
        "unique": found.unique,
        "updateable": found.updateable,
        "writeRequiresMasterRead": False,
    }
