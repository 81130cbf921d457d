"""Run as a script: prints every route of the installed SGLang's HTTP server, as JSON."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

LAUNCHER = Path(__file__).parents[3] / "areal_real" / "serving" / "cpu_launcher.py"


def routes(found: Iterable[Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Method and path of each, with those of routers within; ``WS`` is a WebSocket."""
    for route in found:
        path = before + getattr(route, "path", "")
        if hasattr(route, "routes"):
            yield from routes(route.routes or (), path)
        elif hasattr(route, "path"):
            for method in getattr(route, "methods", None) or ("WS",):
                yield method, path


def main() -> None:
    """Print them."""
    runpy.run_path(str(LAUNCHER))  # so that SGLang can be imported
    from sglang.srt.entrypoints.http_server import app

    declared = {
        (method.upper(), path) for path, ways in app.openapi()["paths"].items() for method in ways
    }
    print(json.dumps(sorted(declared | set(routes(app.routes)))))


if __name__ == "__main__":
    main()
