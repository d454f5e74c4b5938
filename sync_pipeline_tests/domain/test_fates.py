"""One table from the cause of a refusal to the fate of its row."""

from __future__ import annotations

import re

import duckdb
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_pipeline.domain.fates import CAUSES, Fate, fate_of, patterns

TRIGGER, FLOW = "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "CANNOT_EXECUTE_FLOW_TRIGGER"
IN_TRIGGER = "OppTrigger: execution of BeforeUpdate caused by: "
IN_FLOW = (
    "We can't save this record because the “Opportunity: every time” process failed. Give your Salesforce admin these "
    "details. This error occurred when the flow tried to update records: "
)
LOCK = "unable to obtain exclusive access to this record or 200 records: 001A,001B: []"
DML = "System.DmlException: Update failed. First exception on row 0 with id 001A; first error: "
RULE = "FIELD_CUSTOM_VALIDATION_EXCEPTION"

ROWS = [
    # What passes by itself, by its own code.
    ("UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to this record or 200 records: 001A", Fate.AGAIN),
    ("TXN_LOCK_TIMEOUT", "", Fate.AGAIN),
    ("REQUEST_RUNNING_TOO_LONG", "Your request was running for too long, and has been stopped.", Fate.AGAIN),
    ("QUERY_TIMEOUT", "Your query request was running for too long.", Fate.AGAIN),
    ("SERVER_UNAVAILABLE", "server unavailable", Fate.AGAIN),
    ("UNKNOWN_EXCEPTION", "An unexpected error occurred. ErrorId: 12-3 (4)", Fate.AGAIN),
    # The same, met by a trigger, a flow, a package, or a trigger behind another trigger.
    (TRIGGER, f"{IN_TRIGGER}{DML}UNABLE_TO_LOCK_ROW, {LOCK} Trigger.OppTrigger: line 7, column 1", Fate.AGAIN),
    (TRIGGER, f"dlrs_OpportunityTrigger: execution of AfterInsert caused by: {DML}UNABLE_TO_LOCK_ROW, {LOCK} (dlrs)", Fate.AGAIN),
    (TRIGGER, f"{IN_TRIGGER}{DML}{TRIGGER}, AccTrigger: execution of AfterUpdate\n\ncaused by: {DML}UNABLE_TO_LOCK_ROW, {LOCK}", Fate.AGAIN),
    (TRIGGER, f"{IN_TRIGGER}System.QueryException: Record Currently Unavailable: The record you are attempting to edit", Fate.AGAIN),
    (TRIGGER, f"{IN_TRIGGER}{DML}QUERY_TIMEOUT, Your query request was running for too long.: []", Fate.AGAIN),
    (FLOW, f"{IN_FLOW}UNABLE_TO_LOCK_ROW: {LOCK}. You can look up ExceptionCode values in the SOAP API Developer Guide.", Fate.AGAIN),
    # Limits of one transaction.
    (TRIGGER, f"{IN_TRIGGER}System.LimitException: Apex CPU time limit exceeded Class.Handler.run: line 116, column 1", Fate.APART),
    (TRIGGER, f"{IN_TRIGGER}System.LimitException: Too many SOQL queries: 101", Fate.APART),
    (TRIGGER, f"{IN_TRIGGER}System.LimitException: dlrs:Too many query rows: 50001", Fate.APART),
    (TRIGGER, f"{IN_TRIGGER}System.LimitException: Too many DML rows: 10001", Fate.APART),
    (TRIGGER, f"{IN_TRIGGER}System.LimitException: Too many DML statements: 151", Fate.APART),
    (TRIGGER, f"{IN_TRIGGER}System.LimitException: Apex heap size too large: 12000001", Fate.APART),
    (FLOW, f"{IN_FLOW}{TRIGGER}: OppTrigger: System.LimitException: Apex CPU time limit exceeded", Fate.APART),
    (FLOW, f"{IN_FLOW}Too many SOQL queries: 101. You can look up ExceptionCode values", Fate.APART),
    # What stays refused, whatever words it uses.
    (TRIGGER, f"{IN_TRIGGER}System.NullPointerException: Attempt to de-reference a null object", Fate.FINAL),
    (TRIGGER, f"{IN_TRIGGER}{DML}FIELD_CUSTOM_VALIDATION_EXCEPTION, Close date is in the past: [CloseDate]", Fate.FINAL),
    (TRIGGER, f"{IN_TRIGGER}System.LimitException: Maximum stack depth reached: 1001", Fate.FINAL),
    (TRIGGER, f"{IN_TRIGGER}BillingException: Too many open invoices: 12", Fate.FINAL),
    (TRIGGER, f"{IN_TRIGGER}BillingException: the Apex CPU time limit exceeded message is explained in the wiki", Fate.FINAL),
    (TRIGGER, f"{IN_TRIGGER}BillingException: ask for UNABLE_TO_LOCK_ROW in the help desk", Fate.FINAL),
    (FLOW, f"{IN_FLOW}INVALID_CROSS_REFERENCE_KEY: Owner ID: owner cannot be blank", Fate.FINAL),
    (RULE, f"{IN_TRIGGER}{DML}UNABLE_TO_LOCK_ROW, {LOCK}", Fate.FINAL),
    (RULE, "System.LimitException: Apex CPU time limit exceeded", Fate.FINAL),
    (RULE, "UNABLE_TO_LOCK_ROW: the record is locked by finance", Fate.FINAL),
    ("FIELD_INTEGRITY_EXCEPTION", "UNABLE_TO_LOCK_ROW, says our rule", Fate.FINAL),
    ("REQUIRED_FIELD_MISSING", "Required fields are missing: [Name]", Fate.FINAL),
    ("DUPLICATES_DETECTED", "You're creating a duplicate record.", Fate.FINAL),
    ("STORAGE_LIMIT_EXCEEDED", "storage limit exceeded", Fate.FINAL),
    ("UNKNOWN", "An error without a code: System.LimitException: Too many SOQL queries: 101", Fate.FINAL),
]  # fmt: skip


@pytest.mark.parametrize(("code", "message", "fate"), ROWS)
def test_the_cause_decides_what_becomes_of_a_row(code: str, message: str, fate: Fate) -> None:
    assert fate_of(code, message) is fate


@pytest.mark.parametrize(
    "code",
    (
        "REQUIRED_FIELD_MISSING DUPLICATE_EXTERNAL_ID INVALID_FIELD INVALID_CROSS_REFERENCE_KEY STRING_TOO_LONG "
        "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST FIELD_CUSTOM_VALIDATION_EXCEPTION INVALID_TYPE_ON_FIELD_IN_RECORD "
        "STORAGE_LIMIT_EXCEEDED DUPLICATES_DETECTED CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY CANNOT_EXECUTE_FLOW_TRIGGER "
        "INSUFFICIENT_ACCESS_OR_READONLY INVALID_FIELD_FOR_INSERT_UPDATE"
    ).split(),
)
def test_a_code_that_stays_is_final_by_itself(code: str) -> None:
    assert fate_of(code, "") is Fate.FINAL


def fates_by_polars(errors: pl.Series) -> list[Fate]:
    def fits(*fates: Fate) -> list[bool]:
        return errors.str.contains(f"^(?:{'|'.join(patterns(*fates))})").to_list()

    return [
        Fate.AGAIN if again else Fate.APART if apart else Fate.FINAL
        for again, apart in zip(fits(Fate.AGAIN), fits(Fate.APART), strict=True)
    ]


def fates_by_duckdb(errors: pl.Series) -> list[Fate]:
    def fits(error: str, *fates: Fate) -> bool:
        pattern = f"^(?:{'|'.join(patterns(*fates))})"
        return bool(duckdb.execute("SELECT regexp_matches(?, ?)", [error, pattern]).fetchall()[0][0])

    return [
        Fate.AGAIN if fits(error, Fate.AGAIN) else Fate.APART if fits(error, Fate.APART) else Fate.FINAL
        for error in errors
    ]


def test_the_engines_that_read_the_patterns_agree_on_every_row_of_the_table() -> None:
    errors = pl.Series([f"{code}:{message}" for code, message, _ in ROWS])
    wanted = [fate for _, _, fate in ROWS]

    assert fates_by_polars(errors) == wanted
    assert fates_by_duckdb(errors) == wanted


CODES = st.sampled_from([TRIGGER, FLOW, RULE, "UNABLE_TO_LOCK_ROW", "UNKNOWN_EXCEPTION", "STRING_TOO_LONG"])
PIECES = st.sampled_from(
    [
        "System.LimitException: ",
        "UNABLE_TO_LOCK_ROW",
        ", ",
        ": ",
        "Too many ",
        "SOQL queries",
        "101",
        "\n",
        "İ",
        "pkg:",
        DML,
    ]
)


@given(CODES, st.lists(PIECES, max_size=8).map("".join))
def test_the_engines_that_read_the_patterns_agree_on_any_error(code: str, message: str) -> None:
    assert fates_by_polars(pl.Series([f"{code}:{message}"])) == [fate_of(code, message)]


def test_every_cause_has_a_row_here() -> None:
    hit = {
        next(c.name for c in CAUSES if re.match(c.pattern, f"{code}:{text}")) for code, text, f in ROWS if f != "final"
    }

    assert hit == {cause.name for cause in CAUSES}


@given(st.text(max_size=200))
def test_what_a_validation_rule_says_is_final_whatever_it_is(message: str) -> None:
    assert fate_of(RULE, message) is Fate.FINAL
