"""MQTT: verdicts, alarms and the line's status to a broker, and from there to whoever subscribes.

    <topic>/verdict/<lane>    each verdict, the event as the daemon published it; at least once
    <topic>/alarm             alarms and changes of state; at least once
    <topic>/status            kept by the broker: {"online", "stale", "state", "permit", "holds", "sessions", "counters", "epoch"}

`holds` say what withholds the permit from all gateways, `sessions` are the gateways that are connected: where there is none, nobody lets
parts pass.

When this process dies the broker itself says `{"online": false}` (last will). Beyond this machine TLS is required, unless `plain: true`
says that the network is trusted.

    mqtt:
      kind: mqtt
      host: 127.0.0.1
      topic: plant/line1/station1
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from inspector.bridges._extra import is_here, library
from inspector.config import Strict
from inspector.records import ConfigError, DeviceError

ANSWER_S = 5.0
KEEPALIVE_S = 10


class Settings(Strict):
    """`ca` is the file of the authority that signed the broker's certificate, `password_file` holds the password alone."""

    host: str = Field(min_length=1, max_length=255)
    port: int = Field(default=1883, ge=1, le=65535)
    topic: str = Field(pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+){0,15}$")
    user: str | None = None
    password_file: Path | None = None
    ca: Path | None = None
    plain: bool = False

    @model_validator(mode="after")
    def _safe(self) -> Settings:
        if self.ca is None and not self.plain and not is_here(self.host):
            raise PydanticCustomError("E_SEC_PLAIN", "beyond this machine `ca` (TLS) is needed, or `plain: true` for a trusted network")
        return self


class Mqtt:
    """A client of the broker; it connects when it has something to say."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._settings, self._name = settings, name
        self._client: Any = None

    def send(self, event: Mapping[str, Any]) -> None:
        """Publish one event. Raises `DeviceError` when the broker does not take it within 5 s, `ConfigError` when it never will."""
        if self._client is None:
            self._client = self._connect()
        topic, body, lasting = self._message(event)
        told = self._client.publish(f"{self._settings.topic}/{topic}", json.dumps(body, separators=(",", ":")), qos=1, retain=lasting)
        try:
            told.wait_for_publish(ANSWER_S)
            arrived = told.is_published()
        except (RuntimeError, ValueError) as error:
            self._drop()
            raise DeviceError(f"{self._where}: {error}") from error
        if not arrived:
            self._drop()
            raise DeviceError(f"{self._where}: no answer within {ANSWER_S:g} s")

    def close(self) -> None:
        """Say that nothing more will come, and go."""
        if self._client is not None:
            told = self._client.publish(f"{self._settings.topic}/status", json.dumps({"online": False}), qos=1, retain=True)
            if self._client.is_connected():
                told.wait_for_publish(1.0)
            self._drop()

    @property
    def _where(self) -> str:
        return f"MQTT broker {self._settings.host}:{self._settings.port}"

    @staticmethod
    def _message(event: Mapping[str, Any]) -> tuple[str, Mapping[str, Any], bool]:
        """(topic, body, kept by the broker)."""
        match event.get("schema"):
            case "insp.verdict":
                return f"verdict/{int(event.get('lane') or 0)}", event, False
            case "insp.hb":
                told = {key: event.get(key) for key in ("state", "permit", "holds", "sessions", "counters", "epoch")}
                return "status", {"online": True, "stale": False, **told}, True
            case "insp.stale":
                return "status", {"online": True, "stale": True}, True
            case _:
                return "alarm", event, False

    def _connect(self) -> Any:
        paho, settings = library("paho.mqtt.client"), self._settings
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=f"inspector-{self._name}", protocol=paho.MQTTv311)
        client.will_set(f"{settings.topic}/status", json.dumps({"online": False}), qos=1, retain=True)
        try:
            if settings.user is not None:
                password = None if settings.password_file is None else settings.password_file.read_text().strip()
                client.username_pw_set(settings.user, password)
            if settings.ca is not None:
                client.tls_set(ca_certs=str(settings.ca))
        except (OSError, ValueError) as error:
            raise ConfigError("E_KEY_OPEN", f"{self._where}: {error}") from error
        answered, refused = threading.Event(), []

        def on_connect(_client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
            if reason.is_failure:
                refused.append(str(reason))
            answered.set()

        client.on_connect = on_connect
        try:
            client.connect(settings.host, settings.port, keepalive=KEEPALIVE_S)
        except (OSError, ValueError) as error:
            raise DeviceError(f"{self._where}: {error}") from error
        client.loop_start()
        if not answered.wait(ANSWER_S) or refused:
            client.loop_stop()
            raise DeviceError(f"{self._where}: {refused[0] if refused else 'no answer'}")
        return client

    def _drop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self._client = None


def build(settings: Settings, name: str) -> Mqtt:
    """The bridge; it does not connect yet."""
    return Mqtt(settings, name)
