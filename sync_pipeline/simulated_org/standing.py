"""Rows that no load brings: the organization, its users with their profiles, its stages. They are there in a fresh org too.

Organization: https://developer.salesforce.com/docs/atlas.en-us.object_reference.meta/object_reference/sforce_api_objects_organization.htm
OpportunityStage: https://developer.salesforce.com/docs/atlas.en-us.object_reference.meta/object_reference/sforce_api_objects_opportunitystage.htm
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import polars as pl

from sync_pipeline.simulated_org.objects import SObject, find_object
from sync_pipeline.simulated_org.records import KEY, NO_KEY, Records, match_key
from sync_pipeline.simulated_org.state import Org

PROBABILITIES: Final[Mapping[str, float]] = {
    "Prospecting": 10.0, "Qualification": 10.0, "Needs Analysis": 20.0, "Value Proposition": 50.0,
    "Id. Decision Makers": 60.0, "Perception Analysis": 70.0, "Proposal/Price Quote": 75.0, "Negotiation/Review": 90.0,
    "Closed Won": 100.0,
}  # fmt: skip
"""Probability of each stage; of any other, none."""


def put_rows(org: Org, name: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Puts typed rows into an object, unchecked, and gives their ids; one with an ``Id`` that is there takes its place.

    What a row leaves out is empty, but for its id, its owner and its dates.
    """
    sobject = find_object(org, name)
    if sobject is None:
        raise ValueError(f"the org has no object {name}")
    unknown = {field for row in rows for field in row} - set(sobject.fields)
    if unknown:
        raise ValueError(f"{name} has no field {', '.join(sorted(unknown))}")
    records = Records(org, sobject)
    now = datetime.fromtimestamp(org.now(), UTC).replace(microsecond=0)
    system = {
        "IsDeleted": False, "OwnerId": org.user_id, "CreatedById": org.user_id, "LastModifiedById": org.user_id,
        "CreatedDate": now, "LastModifiedDate": now, "SystemModstamp": now,
    }  # fmt: skip
    whole = [{**system, "Id": row.get("Id") or org.new_id(sobject.prefix), **row} for row in rows]
    frame = pl.DataFrame(
        [pl.Series(field, [row.get(field) for row in whole], dtype=dtype) for field, dtype in sobject.stored.items()]
    )
    keyless = pl.concat_str(pl.lit(NO_KEY), "Id")
    key = sobject.key
    frame = frame.with_columns(
        (keyless if key is None else pl.coalesce(match_key(pl.col(key.name), key), keyless)).alias(KEY)
    )
    with org.write():
        touched = records.touch(frame[KEY])
        touched.put(frame)
        touched.save()
    return frame["Id"].to_list()


def ensure_standing_rows(org: Org) -> None:
    """Makes the rows of a fresh org; does nothing when they are there."""
    organization = _object(org, "Organization")
    if Records(org, organization).version:
        return
    with org.write():
        if Records(org, organization).version:  # another thread was faster
            return
        put_rows(
            org,
            "Organization",
            [
                {
                    "Id": org.org_id, "Name": "Simulated Org", "OrganizationType": "Enterprise Edition",
                    "IsSandbox": False, "InstanceName": "SIM1", "LanguageLocaleKey": "en_US",
                }
            ],
        )  # fmt: skip
        administrator, integration = put_rows(
            org,
            "Profile",
            [
                {"Name": "System Administrator", "UserType": "Standard"},
                {"Name": "Minimum Access - API Only Integrations", "UserType": "Standard"},
            ],
        )
        everybody = {
            "IsActive": True, "UserType": "Standard", "TimeZoneSidKey": "GMT", "LocaleSidKey": "en_US",
            "LanguageLocaleKey": "en_US",
        }  # fmt: skip
        put_rows(
            org,
            "User",
            [
                {
                    "Id": org.user_id, "Username": "integration@simulated.example", "Name": "Integration User",
                    "FirstName": "Integration", "LastName": "User", "Alias": "integ", "CommunityNickname": "integration",
                    "Email": "integration@simulated.example", "ProfileId": integration, **everybody,
                },
                {
                    "Id": org.admin_id, "Username": "admin@simulated.example", "Name": "Org Administrator",
                    "FirstName": "Org", "LastName": "Administrator", "Alias": "admin", "CommunityNickname": "admin",
                    "Email": "admin@simulated.example", "ProfileId": administrator, **everybody,
                },
            ],
        )  # fmt: skip
        stage_name = _object(org, "Opportunity").find("StageName")
        stages = stage_name.picklist if stage_name is not None else ()
        put_rows(
            org,
            "OpportunityStage",
            [
                {
                    "MasterLabel": stage, "ApiName": stage, "IsActive": True, "IsClosed": stage.startswith("Closed"),
                    "IsWon": stage == "Closed Won", "SortOrder": float(place),
                    "DefaultProbability": PROBABILITIES.get(stage, 0.0),
                }
                for place, stage in enumerate(stages, start=1)
            ],
        )  # fmt: skip


def _object(org: Org, name: str) -> SObject:
    sobject = find_object(org, name)
    if sobject is None:
        raise ValueError(f"the org has no object {name}")
    return sobject
