"""Keys: who is not on the list has no session and hears nothing; bad key files are refused with their reason, and no text shows a key."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import zmq
from typer.testing import CliRunner

from inspector.__main__ import application
from inspector.client import Gateway, Message, Subscriber, Told
from inspector.gate import protocol, security, sockets
from inspector.gate.security import Client, Pair
from inspector.records import ConfigError
from inspector.runtime import gate
from tests.gate.line import TERMS, running, until


def _keys(folder: Path) -> dict[str, Path]:
    server = security.write_pair(folder / "server.key")
    lines = []
    for name, role in (("plc-1", "gate"), ("historian", "replay"), ("mes", "scada")):
        pair = security.write_pair(folder / f"{name}.key", server=server.public)
        lines.append(f"{pair.public.decode()} {role} {name}")
    (folder / "clients").write_text("\n".join(lines) + "\n")
    return {"server_key": folder / "server.key", "clients": folder / "clients"}


@pytest.mark.real
def test_only_listed_keys_are_let_in_each_where_its_role_allows(tmp_path: Path) -> None:
    files = _keys(tmp_path)
    with running(tmp_path, security=files) as line:
        ends = line.gate.endpoints()
        plc, historian = (security.read_pair(tmp_path / f"{name}.key") for name in ("plc-1", "historian"))
        stranger = Pair(*zmq.curve_keypair(), plc.server)
        with Gateway(ends["gate"], TERMS, keys=plc) as good, Subscriber(ends["events"], replay=ends["replay"], keys=historian) as scada:
            until(lambda: good.poll(5) is not None and good.permit)
            until(lambda: scada.receive(0.05) is None and scada.joined)
            with (
                Gateway(ends["gate"], TERMS, keys=stranger) as unknown,
                Gateway(ends["gate"], TERMS, keys=historian) as wrong_role,
                Gateway(ends["gate"], TERMS) as plain,
                Subscriber(ends["events"], keys=stranger) as eavesdropper,
            ):
                line.expose(1)
                assert isinstance(scada.receive(2.0), Message)
                end = time.monotonic() + 0.5
                while time.monotonic() < end:
                    good.poll(1)
                    for other in (unknown, wrong_role, plain):
                        assert other.poll(1) == []
                        assert not other.connected
                assert eavesdropper.receive(0.01) is None
                assert not eavesdropper.joined
            assert good.permit
            files["clients"].write_text("# nobody\n")
            told: list[Told] = []

            def _sent_away() -> bool:
                told.extend(h for h in good.poll(5) if isinstance(h, Told))
                return any(t.body.get("code") == "E_AUTH" for t in told)

            until(_sent_away, 2.0)
            assert not good.permit


def _take_off(clients: Path, name: str) -> None:
    """As an editor does: another file in its place."""
    lines = [line for line in clients.read_text().splitlines() if not line.endswith(f" {name}")]
    other = clients.with_suffix(".new")
    other.write_text("\n".join(lines) + "\n")
    other.replace(clients)


@pytest.mark.real
def test_who_is_taken_off_the_list_hears_no_more_and_nobody_else_misses_anything(tmp_path: Path) -> None:
    files = _keys(tmp_path)
    historian, mes = (security.read_pair(tmp_path / f"{name}.key") for name in ("historian", "mes"))
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with running(tmp_path, security=files) as line, ExitStack() as stack:
        stack.callback(context.destroy, linger=0)
        ends = line.gate.endpoints()
        asker = context.socket(zmq.DEALER)
        asker.setsockopt(zmq.CURVE_SERVERKEY, historian.server)
        asker.setsockopt(zmq.CURVE_PUBLICKEY, historian.public)
        asker.setsockopt(zmq.CURVE_SECRETKEY, historian.secret)
        asker.connect(ends["replay"])

        def asked() -> list[bytes]:
            asker.send_multipart(protocol.command("SNAPSHOT", {"streams": ["q"]}))
            assert asker.poll(3000)
            return asker.recv_multipart()

        with Subscriber(ends["events"], keys=historian) as off, Subscriber(ends["events"], replay=ends["replay"], keys=mes) as stays:
            until(lambda: off.receive(0.02) is None and off.joined and stays.receive(0.02) is None and stays.joined)
            assert asked()[0] == b"SNAP"
            _take_off(files["clients"], "historian")
            seqs, sent = list[int](), list[int]()

            def heard_all() -> bool:
                sent.append(len(sent) + 1)
                line.expose(sent[-1])
                while isinstance(item := stays.receive(0.01), Message):
                    seqs.append(item.header.seq)
                assert item is None
                while off.receive(0.0) is not None:
                    pass
                return off.stale and not stays.stale and bool(seqs)

            until(heard_all)
            while len(seqs) < len(sent):
                item = stays.receive(3.0)
                assert isinstance(item, Message)
                seqs.append(item.header.seq)
            assert seqs == sent
            assert off.receive(0.0) is None
            refused = asked()
            assert (refused[0], protocol.loads(refused[2])["code"]) == (b"REFUSE", "E_AUTH")
        assert line.gate.endpoints() == ends


@pytest.mark.real
def test_an_address_that_is_not_free_at_once_is_tried_for_until_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, taker = _keys(tmp_path), ExitStack()
    mes = security.read_pair(tmp_path / "mes.key")
    monkeypatch.setattr(gate, "DEAF_NS", 100_000_000)

    def taken(pub: zmq.Socket[bytes], at: str) -> None:
        hang_up(pub, at)

        def free() -> bool:
            with suppress(OSError):
                taker.enter_context(socket.create_server(("127.0.0.1", int(at.rpartition(":")[2]))))
                return True
            return False

        until(free)

    hang_up = sockets.hang_up
    monkeypatch.setattr(sockets, "hang_up", taken)
    with taker, running(tmp_path, security=files) as line, Subscriber(line.gate.endpoints()["events"], keys=mes) as stays:
        until(lambda: stays.receive(0.02) is None and stays.joined)
        _take_off(files["clients"], "historian")
        until(lambda: line.gate._arbiter.alarms.get("EVENTS", 0) == 1)
        taker.close()
        until(lambda: line.gate._arbiter.alarms.get("EVENTS", 0) == 2)
        before = stays.status
        until(lambda: stays.receive(0.02) is None and stays.status is not before)


@pytest.mark.real
def test_the_probe_finds_a_gate_that_lets_everybody_in(tmp_path: Path) -> None:
    """CURVE without anybody who answers for ZAP, and without the enforced domain, is open."""
    public, secret = zmq.curve_keypair()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        open_gate = context.socket(zmq.ROUTER)
        open_gate.setsockopt(zmq.CURVE_SERVER, 1)
        open_gate.setsockopt(zmq.CURVE_SECRETKEY, secret)
        port = open_gate.bind_to_random_port("tcp://127.0.0.1")
        with pytest.raises(ConfigError, match="E_SEC_PROBE"):
            sockets.probe(context, f"tcp://127.0.0.1:{port}", Pair(public, secret), kind=zmq.DEALER)
    finally:
        context.destroy(linger=0)


@pytest.mark.parametrize(
    ("text", "mode", "code"),
    [
        ("public: {p}\nsecret: {s}\n", 0o644, "E_KEY_MODE"),
        ("public: {p}\nsecret: short\n", 0o600, "E_KEY_FORMAT"),
        ("public: {p}\nsecret: " + "\\" * 40 + "\n", 0o600, "E_KEY_FORMAT"),
        ("public: {p}\n", 0o600, "E_KEY_ROLE"),
        ("public: {p}\nsecret: {p}\n", 0o600, "E_KEY_ROLE"),
        ("public: Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{{hID\nsecret: D:)Q[IlAW!ahhC2ac:9*A}}h:p?([4%wOTJ%JR%cs\n", 0o600, "E_KEY_TEST"),
    ],
)
def test_bad_key_files(tmp_path: Path, text: str, mode: int, code: str) -> None:
    public, secret = (key.decode() for key in zmq.curve_keypair())
    path = tmp_path / "server.key"
    path.write_text(text.format(p=public, s=secret))
    path.chmod(mode)
    with pytest.raises(ConfigError, match=code) as caught:
        security.read_pair(path)
    assert secret not in str(caught.value)


def test_a_missing_credential_names_the_unit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="LoadCredential="):
        security.read_pair(tmp_path / "credentials" / "server.key")


def test_a_credential_of_systemd_may_be_readable_by_its_acl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "server.key"
    pair = security.write_pair(path)
    path.chmod(0o440)
    with pytest.raises(ConfigError, match="E_KEY_MODE"):
        security.read_pair(path)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert security.read_pair(path) == pair
    path.chmod(0o444)
    with pytest.raises(ConfigError, match="E_KEY_MODE"):
        security.read_pair(path)


def test_outside_the_unit_the_file_that_its_credential_is_made_of_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = security.write_pair(tmp_path / "server.key")
    assert security.read_pair(tmp_path / security.CREDENTIAL) == pair
    monkeypatch.setenv(security.CREDENTIALS, str(tmp_path))
    with pytest.raises(ConfigError, match="E_KEY_OPEN"):
        security.read_pair(tmp_path / security.CREDENTIAL)


def test_zap_refuses_what_it_does_not_understand() -> None:
    public, _ = zmq.curve_keypair()
    raw = zmq.utils.z85.decode(public)
    clients = {public: Client("plc-1", "gate")}
    asked = [b"1.0", b"7", b"insp-gate", b"127.0.0.1", b"", b"CURVE", raw]
    assert security.answer(asked, clients)[1:5] == [b"7", b"200", b"OK", b"plc-1"]
    for at, value in ((0, b"2.0"), (2, b"other"), (5, b"PLAIN"), (5, b"NULL"), (6, bytes(32)), (6, b"short")):
        assert security.answer([*asked[:at], value, *asked[at + 1 :]], clients)[2] == b"400"
    assert security.answer([b"1.0"], clients)[2] == b"400"
    assert security.answer([*asked, b"more"], clients)[2] == b"400"


def test_keys_new_makes_what_the_daemon_reads(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    run = CliRunner().invoke(application(), ["keys", "new", str(folder), "--client", "plc-1:gate", "--client", "mes:scada"])
    assert run.exit_code == 0, run.output
    server = security.read_pair(folder / "server.key")
    assert security.read_pair(folder / "plc-1.key").server == server.public
    assert sorted(client.role for client in security.read_clients(folder / "clients").values()) == ["gate", "scada"]
    assert server.secret.decode() not in run.output


@pytest.mark.real
def test_while_nobody_answers_for_zap_nobody_new_is_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, answer, broken = _keys(tmp_path), security.answer, [True, True]

    def broken_twice(frames: Sequence[bytes], clients: Mapping[bytes, Client]) -> list[bytes]:
        if broken:
            broken.pop()
            raise RuntimeError("no memory")
        return answer(frames, clients)

    with running(tmp_path, security=files) as line:
        plc = security.read_pair(tmp_path / "plc-1.key")
        zap = line.gate._zap
        assert zap is not None
        before = zap.worker
        with Gateway(line.gate.endpoints()["gate"], TERMS, keys=plc) as first:
            until(lambda: first.poll(5) is not None and first.permit)
            monkeypatch.setattr(security, "answer", broken_twice)
            stranger = Pair(*zmq.curve_keypair(), plc.server)
            with Gateway(line.gate.endpoints()["gate"], TERMS, keys=stranger) as unknown:
                until(lambda: not broken and first.poll(5) is not None)
                assert unknown.poll(5) == []
                assert not unknown.connected
            until(lambda: first.poll(5) is not None and line.gate._zap is not None and line.gate._zap.worker is not before and first.permit)
            assert line.gate._arbiter.alarms["ZAP"] >= 1
        with Gateway(line.gate.endpoints()["gate"], TERMS, keys=plc) as again:
            until(lambda: again.poll(5) is not None and again.permit)
