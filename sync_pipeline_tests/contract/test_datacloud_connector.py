"""salesforce-datacloud-connector, unchanged, against the TCP door."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import salesforce_datacloud_connector as connector

from sync_pipeline.simulated_org.state import Org
from sync_pipeline_tests.contract.conftest import ROWS

KEYS = 'SELECT "ExternalId__c", "Amount__c", "CloseDate__c" FROM "ExtOpportunities__dlm" ORDER BY "ExternalId__c"'


@pytest.fixture
def connection(served: tuple[str, Org]) -> Iterator[connector.Connection]:
    url, _ = served
    opened = connector.connect(
        login_url=url, auth_type="username_password", username="someone", password="secret",
        client_id="simulated", client_secret="simulated",
    )  # fmt: skip
    yield opened
    opened.close()


@pytest.fixture
def nested(served: tuple[str, Org]) -> Iterator[None]:
    """The connector reads the status of a running statement one level deeper than the documents show it."""
    _, org = served
    org.set_setting("nested_status", True)
    yield
    org.set_setting("nested_status", None)


def test_a_small_result_comes_with_the_first_answer(connection: connector.Connection) -> None:
    cursor = connection.cursor()

    cursor.execute('SELECT count(*) AS n FROM "ExtOpportunities__dlm"')

    assert cursor.fetchone()[0] == ROWS


def test_a_large_result_is_paged_to_its_end(connection: connector.Connection, nested: None) -> None:
    cursor = connection.cursor()

    cursor.execute(KEYS)
    rows = cursor.fetchall()

    keys = [row[0] for row in rows]
    assert len(keys) == ROWS
    assert keys == sorted(keys)


def test_pages_under_a_byte_cap_are_joined(
    served: tuple[str, Org], connection: connector.Connection, nested: None
) -> None:
    _, org = served
    org.set_setting("page_bytes", 20_000)
    try:
        cursor = connection.cursor()
        cursor.execute(KEYS)
        rows = cursor.fetchall()
    finally:
        org.set_setting("page_bytes", None)

    assert len(rows) == ROWS


def test_parameters_reach_the_engine(connection: connector.Connection) -> None:
    cursor = connection.cursor()

    cursor.execute(
        'SELECT "ExternalId__c" FROM "ExtOpportunities__dlm" WHERE "ExternalId__c" = :k0',
        {"k0": "externalOpp0000007"},
    )

    assert [row[0] for row in cursor.fetchall()] == ["externalOpp0000007"]


def test_a_bad_statement_is_an_error_of_the_driver(connection: connector.Connection) -> None:
    with pytest.raises(connector.Error):
        connection.cursor().execute("SELEC 1")


def test_tables_are_listed_with_their_columns(connection: connector.Connection) -> None:
    tables = {table.name: table for table in connection.list_tables()}

    source = tables["ExtOpportunities__dlm"]
    types = {field.name: field.type for field in source.fields}
    assert (types["ExternalId__c"], types["Amount__c"], types["CloseDate__c"]) == ("Text", "Numeric", "Date")


def test_one_table_is_described(connection: connector.Connection) -> None:
    described = connection.get_table_metadata(table_name="ExtOpportunities__dlm")

    assert described is not None
    assert described.fields[0].name == "ExternalId__c"
    assert connection.get_table_metadata(table_name="Nowhere__dlm") is None


def test_a_division_by_zero_is_an_error_of_the_driver(connection: connector.Connection) -> None:
    with pytest.raises(connector.Error, match="22012"):
        connection.cursor().execute("SELECT 1/0")
