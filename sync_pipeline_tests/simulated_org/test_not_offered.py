"""APIs that the org does not have: each refusal in the form of its API, and never that of an expired session."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import httpx
import pytest

from sync_pipeline_tests.simulated_org.conftest import Asker

BULK = "{http://www.force.com/2009/06/asyncapi/dataload}"
SOAP = "{http://schemas.xmlsoap.org/soap/envelope/}"
FAULT = "{urn:fault.partner.soap.sforce.com}"


def is_a_session_error(answer: httpx.Response) -> bool:
    text = answer.text.lower()
    return answer.status_code in (401, 403) or "session" in text or "invalid_login" in text


@pytest.mark.parametrize("path", ["/services/async/66.0/job", "/services/async/66.0/job/750000000000001/batch"])
def test_bulk_api_says_in_xml_that_it_is_not_there(asked: Asker, path: str) -> None:
    headers = {"X-SFDC-Session": "whatever it is", "Authorization": "", "Content-Type": "application/xml"}

    answer = asked.client.post(path, content=b"<jobInfo/>", headers=headers)

    document = ET.fromstring(answer.content)
    assert (answer.status_code, document.tag) == (400, f"{BULK}error")
    assert document.findtext(f"{BULK}exceptionCode") == "FeatureNotEnabled"
    assert "2.0" in (document.findtext(f"{BULK}exceptionMessage") or "")
    assert not is_a_session_error(answer)


def test_bulk_api_says_in_json_that_it_is_not_there_to_whom_it_speaks_json(asked: Asker) -> None:
    answer = asked.client.post("/services/async/66.0/job", json={}, headers={"X-SFDC-Session": "x"})

    assert (answer.status_code, answer.json()["exceptionCode"]) == (400, "FeatureNotEnabled")
    assert not is_a_session_error(answer)


@pytest.mark.parametrize(
    "path", ["/services/Soap/u/59.0", "/services/Soap/c/66.0/00D000000000001", "/services/Soap/m/66.0"]
)
def test_soap_api_answers_a_fault(asked: Asker, path: str) -> None:
    answer = asked.client.post(
        path, content=b"<soapenv:Envelope/>", headers={"Authorization": "", "SOAPAction": "login"}
    )

    fault = ET.fromstring(answer.content).find(f"{SOAP}Body/{SOAP}Fault")
    assert fault is not None
    assert (answer.status_code, fault.findtext("faultcode")) == (500, "sf:API_DISABLED_FOR_ORG")
    assert "not offered" in (fault.findtext("faultstring") or "")
    assert next(fault.iter(f"{FAULT}exceptionCode")).text == "API_DISABLED_FOR_ORG"
    assert not is_a_session_error(answer)


def test_what_is_not_offered_costs_no_call(asked: Asker) -> None:
    asked.client.post("/services/async/66.0/job")
    asked.client.post("/services/Soap/u/59.0")

    assert asked.org.usage()[0] == 0
