"""Stands for what is on a node: scrapes an agent, and takes the spans that come.

python -m tests.bench.collector HOST:PORT http://HOST:PORT
"""

import contextlib
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import urlsplit

SECONDS = 15.0
"""Between two scrapes: half of what is usual."""


class Spans(BaseHTTPRequestHandler):
    """Takes what comes."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


def scrape(address: str) -> None:
    while True:
        with contextlib.suppress(OSError):  # it may tell nothing
            urllib.request.urlopen(f"http://{address}/metrics").read()
        time.sleep(SECONDS)


if __name__ == "__main__":
    threading.Thread(target=scrape, args=(sys.argv[1],), daemon=True).start()
    place = urlsplit(sys.argv[2])
    HTTPServer((place.hostname or "", place.port or 0), Spans).serve_forever()
