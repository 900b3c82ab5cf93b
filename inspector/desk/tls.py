"""The certificate of the page: light enough for who only wants to know whether it can be used."""

from __future__ import annotations

import ssl
from pathlib import Path

from inspector.config import Desk
from inspector.records import ConfigError


def certificate(settings: Desk) -> dict[str, Path]:
    """What the server needs for TLS, nothing without. Raises `ConfigError` E_TLS when certificate and key cannot be used together."""
    if settings.tls_cert is None or settings.tls_key is None:
        return {}
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key, password=_no_password)
    except (OSError, ssl.SSLError) as error:
        text = f"{error.strerror or error}; allowed: a certificate and its key without a password, PEM"
        raise ConfigError("E_TLS", text, file=str(settings.tls_cert), key="desk.tls_cert") from error
    return {"ssl_certfile": settings.tls_cert, "ssl_keyfile": settings.tls_key}


def _no_password() -> str:
    raise OSError("the key has a password")
