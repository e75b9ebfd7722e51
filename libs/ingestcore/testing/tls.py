"""A certificate authority of a test's own, and a TLS tunnel for servers that are built without TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType

import trustme
from cryptography.hazmat.primitives import serialization

HOST = "127.0.0.1"
_PIECE_BYTES = 64 << 10


class Authority:
    """Issues certificates into a folder. `file`: what clients are told to trust."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._ca = folder, trustme.CA()
        self.file = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(str(self.file))

    def issue(self, name: str, *, expired: bool = False) -> Path:
        """-> a PEM file with an unencrypted PKCS#8 key, as Kafka wants it, and the certificate of 127.0.0.1 (and
        localhost). The same name again replaces the file."""
        ends = datetime.now(UTC) + timedelta(days=-1 if expired else 1)
        issued = self._ca.issue_cert(HOST, "localhost", common_name=name, not_after=ends)
        key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path = self._folder / f"{name}.pem"
        path.touch(mode=0o600)
        path.write_bytes(key + b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        return path


class Tunnel:
    """TLS in front of a plain server on this machine. Stand-in for a server's own TLS; what it forwards to is real.

    port         of the plain server
    certificate  PEM file with key and certificate; clients: whose certificates are demanded of clients, if any
    """

    def __init__(self, port: int, certificate: Path, clients: Path | None = None) -> None:
        self._target = port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        if clients is not None:
            self._context.load_verify_locations(clients)
            self._context.verify_mode = ssl.CERT_REQUIRED
        self._listener = socket.create_server((HOST, 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        # A refused handshake or a side that went away ends both connections.
        with (
            contextlib.suppress(OSError),
            plain,
            self._context.wrap_socket(plain, server_side=True) as near,
            socket.create_connection((HOST, self._target)) as far,
        ):
            back = threading.Thread(target=_pump, args=(far, near), daemon=True)
            back.start()
            _pump(near, far)
            back.join()

    def __enter__(self) -> Tunnel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(_PIECE_BYTES):
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
