"""The certificates of a federation: whoever trusts the authority believes this SuperLink and no other."""

import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from fedsim.flower.certificates import Certificates, make_certificates, make_node_key


def greeted(server: Certificates, authority: Path, host: str) -> bytes:
    """Connect to a server with its certificate as a client that trusts an authority does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.certificate, server.key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            accepted, _ = listener.accept()
            try:
                with context.wrap_socket(accepted, server_side=True) as secured:
                    secured.send(b"hello")
            except (ssl.SSLError, OSError):
                accepted.close()

        thread = threading.Thread(target=serve)
        thread.start()
        trusting = ssl.create_default_context(cafile=authority)
        try:
            with (
                socket.create_connection(listener.getsockname()) as plain,
                trusting.wrap_socket(plain, server_hostname=host) as secured,
            ):
                return secured.recv(5)
        finally:
            thread.join(5)


def test_a_client_believes_the_superlink_of_its_authority_and_no_other(tmp_path: Path):
    for name in ("own", "other"):
        (tmp_path / name).mkdir()
    own = make_certificates(tmp_path / "own", ["127.0.0.1", "superlink.example"])
    other = make_certificates(tmp_path / "other", ["127.0.0.1"])
    assert greeted(own, own.authority, "127.0.0.1") == b"hello"
    assert greeted(own, own.authority, "superlink.example") == b"hello"
    with pytest.raises(ssl.SSLCertVerificationError):
        greeted(other, own.authority, "127.0.0.1")
    with pytest.raises(ssl.SSLCertVerificationError):
        greeted(own, own.authority, "elsewhere.example")


def test_keys_are_for_their_owner_only_and_are_not_overwritten(tmp_path: Path):
    files = make_certificates(tmp_path, ["127.0.0.1"])
    private, public = make_node_key(tmp_path, "cleveland")
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in (files.key, private))
    made = load_ssh_private_key(private.read_bytes(), None)
    assert isinstance(made, ec.EllipticCurvePrivateKey)
    assert load_ssh_public_key(public.read_bytes()) == made.public_key()
    with pytest.raises(FileExistsError):
        make_node_key(tmp_path, "cleveland")
