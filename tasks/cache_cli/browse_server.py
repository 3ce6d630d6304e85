"""The HTTP server of `browse`: who may ask, and how much.

It listens on this machine only. Every address begins with a random token, which other users and web pages do not know. A request
with another Host is refused: a web page elsewhere could give its own name the address 127.0.0.1. Pages may load nothing from
elsewhere, and answers are stored nowhere.
"""

import contextlib
import hmac
import http.server
import secrets
import sys
import traceback
from collections.abc import Callable
from urllib.parse import urlsplit

from pipeline.errors import PipelineError
from tasks.cache_cli.browse_requests import Refused, parse_query

HERE = "127.0.0.1"
MOST_BYTES = 20_000_000  # of an uploaded photograph
PATIENCE = 30  # seconds that a connection may be silent
POLICY = (
    "default-src 'none'; img-src 'self' blob: data:; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-store",
}
# answer(method, page, query, body) -> (media type, content)
Answer = Callable[[str, str, dict[str, str], bytes], tuple[str, bytes]]


class Server(http.server.ThreadingHTTPServer):
    """Serves what `answer` makes; `refusal(status, message)` makes the page of an error."""

    daemon_threads = True

    def __init__(self, port: int, answer: Answer, refusal: Callable[[int, str], bytes]):
        super().__init__((HERE, port), Handler)
        self.answer, self.refusal, self.token = answer, refusal, secrets.token_urlsafe(16)
        self.hosts = {f"{name}:{self.server_port}" for name in (HERE, "localhost")}

    @property
    def address(self) -> str:
        return f"http://{HERE}:{self.server_port}/{self.token}/"

    def handle_error(self, request, client_address) -> None:
        """A browser that closes a connection is no error."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class Handler(http.server.BaseHTTPRequestHandler):
    """One request. Each connection ends with its answer."""

    server: Server
    timeout = PATIENCE
    server_version, sys_version = "rcnn-cache", ""

    def do_GET(self) -> None:
        self._respond("GET")

    def do_POST(self) -> None:
        self._respond("POST")

    def _respond(self, method: str) -> None:
        try:
            page, query = self._checked()
            body = self._body() if method == "POST" else b""
            kind, content = self.server.answer(method, page, query, body)
            self._send(200, kind, content)
        except Refused as error:
            self._refuse(error.status, str(error))
        except PipelineError as error:
            self._refuse(409, str(error))
        except (ConnectionError, TimeoutError):
            raise
        except Exception:
            traceback.print_exc()
            self._refuse(500, "an error in the program; the terminal has its message")

    def _checked(self) -> tuple[str, dict[str, str]]:
        """The page and the parameters that are asked for. Raises Refused unless the request may be answered."""
        if self.headers.get_all("Host", []) not in [[host] for host in self.server.hosts]:
            raise Refused(403, "the request has a foreign Host; use the address that `rcnn-cache browse` printed")
        origin = self.headers.get("Origin")
        if origin is not None and origin not in {f"http://{host}" for host in self.server.hosts}:
            raise Refused(403, "the request comes from another page")
        address = urlsplit(self.path)
        _, token, page = (*address.path.split("/", 2), "", "")[:3]
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            raise Refused(403, "the address has no or another token; use the one that `rcnn-cache browse` printed")
        return page, parse_query(address.query)

    def _body(self) -> bytes:
        """The uploaded bytes. Their number is checked before any is read."""
        length = self.headers.get("Content-Length", "")
        if self.headers.get("Transfer-Encoding") or not (length.isascii() and length.isdigit()):
            raise Refused(411, "the request does not say how many bytes it has")
        if len(length) > 12 or int(length) > MOST_BYTES:
            raise Refused(413, f"the photograph is larger than {MOST_BYTES // 1_000_000} MB; make it smaller")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise Refused(400, "the upload was cut short")
        return body

    def _refuse(self, status: int, message: str) -> None:
        self._send(status, "text/html; charset=utf-8", self.server.refusal(status, message))

    def _send(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(content)

    def log_message(self, *arguments) -> None:
        """Nothing: a line would hold the token."""
