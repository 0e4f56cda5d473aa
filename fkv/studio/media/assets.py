"""Files of the page: templates, styles, and the modules that browsers fetch under `/fkv/`."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from fkv import resources
from fkv.policies.kinds import KINDS

ASSETS = resources.asset("studio")
MODULES = "/fkv"


def page_asset(name: str) -> str:
    """Read a text file of the page.

    Raises:
        ValueError: The file is missing; the message names it.
    """
    try:
        return (ASSETS / name).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(
            f"assets/studio/{name} cannot be read ({error.strerror}); restore it from the repository"
        ) from None


def style() -> str:
    """Return the style sheet of the page, with a variable `--fkv-kind-KEY` for the colour of every page kind."""
    light, dark = (
        "".join(f"--fkv-kind-{kind.key}:{kind.colour(theme)};" for kind in KINDS.values())
        for theme in ("light", "dark")
    )
    names = ("style.css", "heads.css", "director.css", "explore.css", "board.css")
    sheets = "".join(map(page_asset, names))
    return f":root{{{light}}}body.dark{{{dark}}}{sheets}"


def script(module: str, *events: str) -> str:
    """Return the `js_on_load` of a gr.HTML component: import a module of the page and mount the component with it.

    Gradio runs the script as a plain function, without `await`.

    Args:
        module: Name of a module in assets/studio that exports `mount`, as in "heads/tab".
        *events: Names of the events that the module triggers; Gradio looks for them in the script.
    """
    root = '(window.gradio_config?.root || document.baseURI).replace(/\\/$/, "")'
    address = f"{root} + '{MODULES}/{module}.js'"
    return f"import({address}).then((module) => module.mount({{ element, props, trigger, watch }})) // {events}"


def module_route(folder: Path = ASSETS) -> Route:
    """Serve the page's modules as `/fkv/NAME.js`, and nothing else of their folder: no listing, no link out of it.

    Browsers ask every time whether a module has changed, and get an empty answer where it has not. A route, not a
    mount: a mount looks for the wrong file where a proxy cuts off `--root-path`.
    """
    files = StaticFiles(directory=folder)

    async def module(request: Request) -> Response:
        response = await files.get_response(f"{request.path_params['name']}.js", request.scope)
        response.headers["Cache-Control"] = "no-cache"
        response.headers["Content-Type"] = "text/javascript; charset=utf-8"
        return response

    return Route(f"{MODULES}/{{name:path}}.js", module)
