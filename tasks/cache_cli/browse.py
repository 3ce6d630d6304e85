"""`browse`: a page on this machine that looks into feature stores. It changes nothing in the cache."""

import threading
import time

from pipeline.errors import PipelineError
from tasks.cache_cli.browse_pictures import FIELDS as PICTURES
from tasks.cache_cli.browse_pictures import Pictures
from tasks.cache_cli.browse_requests import Refused
from tasks.cache_cli.browse_server import Server
from tasks.cache_cli.browse_stores import GIGABYTES, STORES, Stores
from tasks.cache_cli.browse_views import FIELDS as PAGES
from tasks.cache_cli.browse_views import Views
from tasks.cache_cli.text import say
from tasks.engine.catalogue import Catalogue

UPLOADS = ("search",)  # the pages that take a photograph
SLOW = 0.5  # seconds from which on the terminal tells of a page
HTML = "text/html; charset=utf-8"


def browse(catalogue: Catalogue, port: int, gigabytes: float) -> int:
    """Serves the pages until Ctrl-C."""
    server = make_server(catalogue, port, gigabytes)
    say(f"{server.address}")
    say("Open this address in a browser. It is secret and works on this machine only. Ctrl-C ends it.")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        return 0
    finally:
        server.server_close()
    return 0


def make_server(catalogue: Catalogue, port: int = 0, gigabytes: float = GIGABYTES) -> Server:
    """The server of the stores in `catalogue`; port 0 is any that is free. Raises PipelineError for a cache without stores."""
    stores = Stores(catalogue, gigabytes)
    if not stores.by_key:
        raise PipelineError(
            f"{catalogue.cache}: has no feature store of {' or '.join(STORES)}; "
            "`luigi --module tasks FullPipeline --chains rcnn` makes them"
        )
    site = Site(stores)
    try:
        return Server(port, site.answer, site.refusal)
    except OSError as error:
        raise PipelineError(f"port {port}: cannot be used ({error.strerror}); give another --port, or none") from error


class Site:
    """All pages and pictures of the stores. One is made at a time, so that memory is that of one search and the features kept."""

    def __init__(self, stores: Stores):
        self.pictures = Pictures(stores)
        self.views = Views(stores, self.pictures)
        self._lock = threading.Lock()

    def answer(self, method: str, name: str, query: dict[str, str], body: bytes) -> tuple[str, bytes]:
        """The media type and the content of the page, picture or file `name`. Raises Refused if there is none."""
        from pipeline.explorer.page import STATIC, static_file

        if (method == "POST") != (name in UPLOADS):
            raise Refused(405 if name in PAGES else 404, "there is no such page; follow the links of the pages")
        if name in STATIC:
            return STATIC[name], static_file(name)
        with self._lock:
            if name in PICTURES:
                return "image/jpeg", self.pictures.picture(name, query)
            if name not in PAGES:
                raise Refused(404, "there is no such page; follow the links of the pages")
            start = time.monotonic()
            page = self.views.page(name, query, body)
            if (seconds := time.monotonic() - start) >= SLOW:
                say(f"{name}: {seconds:.1f} s")
            return HTML, page

    @staticmethod
    def refusal(status: int, message: str) -> bytes:
        """The page of an error."""
        from pipeline.explorer.page import render

        return render("refusal", status=status, message=message)
