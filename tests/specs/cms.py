"""The CMS that nodes ask with `auth.mode = "callback"`, as far as they see of it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Cms:
    """The CMS of `auth.mode = "callback"`."""

    def __init__(self):
        self.answer = {"sub": "anna", "topics": ["comments:*", "projects"], "publish": ["comments:*"], "expires_in": 5}
        cms = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):  # noqa: N802
                body = json.dumps(cms.answer).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/who"

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
