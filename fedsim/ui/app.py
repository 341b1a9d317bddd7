"""The application: which address leads to which page, and what a browser may do with what it gets.

It answers GET and HEAD only, and only requests that name this machine as their host: else a page elsewhere could give
its own name the address of this machine, and read on. Files of runs are handed out in a sandbox: a stranger's report
may hold a script, which does not run, and loads nothing from anywhere.
"""

from importlib.resources import files
from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedsim.ui import folders
from fedsim.ui.views import Views, message

HOSTS = ("127.0.0.1", "localhost")

_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
_NOTHING = "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; style-src 'unsafe-inline'"
_OWN = f"{_NOTHING}; img-src 'self'; form-action 'self'; script-src 'self'; connect-src 'self'"
_STRANGE = f"{_NOTHING}; img-src data:; form-action 'none'; sandbox"
_POLICY = "Content-Security-Policy"


class _Guarded:
    """Adds the headers that every answer has."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _ALWAYS.items():
                    headers[name] = value
                headers.setdefault(_POLICY, _OWN)
            await send(message)

        await self._app(scope, receive, send_guarded)


def made(root: Path) -> Starlette:
    """Return the application for a folder of runs."""
    views = Views(root)

    def show_list(request: Request) -> Response:
        asked = request.query_params
        return HTMLResponse(views.listed(asked.get("q", ""), asked.get("state", ""), asked.get("order", "")))

    def show_folder(request: Request) -> Response:
        return HTMLResponse(views.shown(_known(views, request.path_params["name"])))

    def compare(request: Request) -> Response:
        page, is_good = views.compared(request.query_params.getlist("run"))
        return HTMLResponse(page, 200 if is_good else 400)

    def hand_out(request: Request) -> Response:
        name, _, file_name = request.path_params["name"].rpartition("/")
        handed = folders.content_of(root, _known(views, name), file_name)
        if handed is None:
            raise HTTPException(404)
        content, kind = handed
        headers = {_POLICY: _STRANGE}
        if kind == "application/octet-stream":
            headers["Content-Disposition"] = "attachment"
        return Response(content, media_type=kind, headers=headers)

    def script(_: Request) -> Response:
        return Response((files("fedsim.ui") / "live.js").read_bytes(), media_type="text/javascript")

    def explain(_: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        said = {404: "There is no such page here.", 405: "Pages can be read here, and nothing else."}
        return HTMLResponse(message(said.get(status, "This can't be answered.")), status)

    return Starlette(
        routes=[
            Route("/", show_list),
            Route("/compare", compare),
            Route("/live.js", script),
            Route("/run/{name:path}", show_folder),
            Route("/file/{name:path}", hand_out),
        ],
        middleware=[
            Middleware(_Guarded),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS), www_redirect=False),
        ],
        exception_handlers={HTTPException: explain},
    )


def _known(views: Views, name: str) -> folders.Folder:
    folder = views.folder(name)
    if folder is None:
        raise HTTPException(404)
    return folder
