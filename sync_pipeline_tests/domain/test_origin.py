"""Secrets go to https origins and to this machine, nowhere else."""

from __future__ import annotations

import pytest

from sync_pipeline.domain.origin import is_loopback, origin


@pytest.mark.parametrize(
    ("url", "sent_to"),
    [
        ("https://acme.my.salesforce.com", "https://acme.my.salesforce.com"),
        ("https://ACME.my.salesforce.com/", "https://acme.my.salesforce.com"),
        ("https://acme.my.salesforce.com:8443", "https://acme.my.salesforce.com:8443"),
        ("http://localhost:8765", "http://localhost:8765"),
        ("http://127.0.0.1:8765/", "http://127.0.0.1:8765"),
        ("http://127.8.9.10", "http://127.8.9.10"),
        ("http://[::1]:8765", "http://[::1]:8765"),
    ],
)
def test_an_origin_is_scheme_host_and_port(url: str, sent_to: str) -> None:
    assert origin(url) == sent_to


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "is not a URL"),
        ("acme.my.salesforce.com", "is not a URL"),
        ("https://", "is not a URL"),
        ("https://acme.my.salesforce.com:port", "is not a URL"),
        ("https://acme .com", "is not a URL"),
        ("https://evil.com\\@acme.my.salesforce.com", "is not a URL"),
        ("https://[::1", "is not a URL"),
        ("https://user:secret@acme.my.salesforce.com", "holds a user name"),
        ("https://acme.my.salesforce.com/services", "must end after the host name"),
        ("https://acme.my.salesforce.com?x=1", "must end after the host name"),
        ("ftp://acme.my.salesforce.com", "is neither https nor http"),
        ("http://acme.my.salesforce.com", "plain http"),
        ("http://127.0.0.1.evil.com", "plain http"),
        ("http://localhost.evil.com", "plain http"),
        ("http://10.0.0.1", "plain http"),
        ("http://0.0.0.0", "plain http"),
    ],
)
def test_anything_else_is_refused_with_the_reason(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        origin(url)


def test_a_name_is_loopback_only_when_it_can_mean_nothing_else() -> None:
    names = ["localhost", "127.0.0.1", "::1", "localhost.localdomain", "example.com", "192.168.0.1"]

    assert [name for name in names if is_loopback(name)] == ["localhost", "127.0.0.1", "::1"]
