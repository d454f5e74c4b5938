"""APIs of Salesforce that this org does not have. Each says so in its own form: an answer in another would be taken for
an expired session, and its client would log in again and again.

Bulk API errors: https://developer.salesforce.com/docs/atlas.en-us.api_asynch.meta/api_asynch/asynch_api_reference_errors.htm
SOAP API faults: https://developer.salesforce.com/docs/atlas.en-us.api.meta/api/sforce_api_calls_concepts_core_data_objects.htm
"""

from __future__ import annotations

from typing import Final
from xml.sax.saxutils import escape

import httpx

from sync_pipeline.simulated_org.call import ANY_METHOD, Call, Route, bytes_answer, json_answer

BULK_CODE: Final = "FeatureNotEnabled"
BULK_MESSAGE: Final = "Bulk API is not offered by this simulated org; Bulk API 2.0 is, below /services/data/vXX.X/jobs"
SOAP_CODE: Final = "API_DISABLED_FOR_ORG"
SOAP_MESSAGE: Final = (
    "SOAP API is not offered by this simulated org; log in at /services/oauth2/token and use the REST API"
)
FAULT_SPACE: Final = "urn:fault.partner.soap.sforce.com"


def bulk_one(call: Call) -> httpx.Response:
    """``/services/async/…``, Bulk API (1): 400 in JSON when JSON is spoken, else in XML."""
    spoken = f"{call.media_type} {call.headers.get('accept', '')}".lower()
    if "json" in spoken:
        return json_answer({"exceptionCode": BULK_CODE, "exceptionMessage": BULK_MESSAGE}, status=400)
    document = (
        '<?xml version="1.0" encoding="UTF-8"?><error xmlns="http://www.force.com/2009/06/asyncapi/dataload">'
        f"<exceptionCode>{BULK_CODE}</exceptionCode><exceptionMessage>{escape(BULK_MESSAGE)}</exceptionMessage></error>"
    )
    return bytes_answer(document.encode(), "application/xml;charset=UTF-8", status=400)


def soap(call: Call) -> httpx.Response:
    """``/services/Soap/…``, all SOAP APIs, the login among them: a fault."""
    told = f"<sf:exceptionCode>{SOAP_CODE}</sf:exceptionCode><sf:exceptionMessage>{escape(SOAP_MESSAGE)}</sf:exceptionMessage>"
    document = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" '
        f'xmlns:sf="{FAULT_SPACE}" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
        f"<soapenv:Body><soapenv:Fault><faultcode>sf:{SOAP_CODE}</faultcode>"
        f"<faultstring>{SOAP_CODE}: {escape(SOAP_MESSAGE)}</faultstring>"
        f'<detail><sf:UnexpectedErrorFault xsi:type="sf:UnexpectedErrorFault">{told}</sf:UnexpectedErrorFault></detail>'
        "</soapenv:Fault></soapenv:Body></soapenv:Envelope>"
    )
    return bytes_answer(document.encode(), "text/xml;charset=UTF-8", status=500)


ROUTES: Final = (
    Route(ANY_METHOD, "/services/async(?:/.*)?", bulk_one, "open"),
    Route(ANY_METHOD, "/services/Soap(?:/.*)?", soap, "open"),
)
