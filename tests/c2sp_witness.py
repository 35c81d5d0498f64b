"""A witness by the text of C2SP tlog-witness and tlog-cosignature, with none of our code.

It parses, verifies and signs by itself (`cryptography` for Ed25519, RFC 9162 section 2.1.4.2 for
consistency) and serves over plain HTTP on a free port of this machine.
"""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

NAME = "witness.example/w1"


def key_id(name: str, kind: int, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + public).digest()[:4]


class Witness:
    """`logs` maps origins to public keys; `seen` to the size and root that were cosigned last."""

    def __init__(self, logs: dict[str, bytes]) -> None:
        self.key = Ed25519PrivateKey.generate()
        self.logs = logs
        self.seen: dict[str, tuple[int, bytes]] = {}
        self.answered: list[int] = []
        self.silent = threading.Event()  # set: it takes connections and says nothing
        self.instead: tuple[int, bytes] | None = None  # what it answers whatever it is asked
        self.lock = threading.Lock()

    @property
    def public(self) -> bytes:
        return self.key.public_key().public_bytes_raw()

    @property
    def vkey(self) -> str:
        material = base64.b64encode(b"\x04" + self.public).decode()
        return f"{NAME}+{key_id(NAME, 4, self.public).hex()}+{material}"

    def add_checkpoint(self, body: bytes) -> tuple[int, bytes]:
        head, _, note = body.partition(b"\n\n")
        first, *proof_lines = head.decode().split("\n")
        word, _, old_text = first.partition(" ")
        if word != "old" or not old_text.isdigit() or str(int(old_text)) != old_text:
            return 400, b""
        proof = [base64.b64decode(line, validate=True) for line in proof_lines]
        text, _, signatures = note.partition(b"\n\n")
        text += b"\n"
        origin, size_text, root_text, *_ = text.decode().split("\n")
        old, size, root = int(old_text), int(size_text), base64.b64decode(root_text)
        if origin not in self.logs:
            return 404, b""
        if not self.signed(origin, text, signatures.decode()):
            return 403, b""
        if old > size or len(proof) > 63:
            return 400, b""
        with self.lock:
            seen_size, seen_root = self.seen.get(origin, (0, hashlib.sha256(b"").digest()))
            if old != seen_size or (size == old and root != seen_root):
                return 409, f"{seen_size}\n".encode()
            if not consistent(old, size, proof, seen_root, root):
                return 422, b""
            self.seen[origin] = (size, root)
        return 200, self.cosign(text)

    def signed(self, origin: str, text: bytes, signatures: str) -> bool:
        public = self.logs[origin]
        for line in signatures.splitlines():
            _, name, encoded = line.split(" ")
            raw = base64.b64decode(encoded)
            if name == origin and raw[:4] == key_id(origin, 1, public):
                try:
                    Ed25519PublicKey.from_public_bytes(public).verify(raw[4:], text)
                except InvalidSignature:
                    return False
                return True
        return False

    def cosign(self, text: bytes) -> bytes:
        now_s = int(time.time())
        signature = self.key.sign(f"cosignature/v1\ntime {now_s}\n".encode() + text)
        raw = key_id(NAME, 4, self.public) + now_s.to_bytes(8, "big") + signature
        return f"— {NAME} {base64.b64encode(raw).decode()}\n".encode()


def consistent(first: int, second: int, proof: list[bytes], old: bytes, new: bytes) -> bool:
    """RFC 9162, 2.1.4.2, step by step."""
    if first in (0, second):
        return not proof and (first == 0 or old == new)
    if not proof:
        return False
    path = [old, *proof] if first & (first - 1) == 0 else list(proof)
    fn, sn = first - 1, second - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for c in path[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr, sr = pair(c, fr), pair(c, sr)
            while not fn & 1 and fn != 0:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = pair(sr, c)
        fn, sn = fn >> 1, sn >> 1
    return fr == old and sr == new and sn == 0


def pair(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


@contextmanager
def serve(witness: Witness) -> Iterator[str]:
    """Its URL."""
    stop = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if witness.silent.is_set():
                stop.wait(30)
                return
            body = self.rfile.read(int(self.headers["Content-Length"]))
            known = self.path == "/some/prefix/add-checkpoint"
            status, answer = witness.add_checkpoint(body) if known else (405, b"")
            if witness.instead is not None:
                status, answer = witness.instead
            witness.answered.append(status)
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            if status == 409:
                self.send_header("Content-Type", "text/x.tlog.size")
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/some/prefix"
    finally:
        stop.set()
        server.shutdown()
        server.server_close()
