"""Draw the pictures of the explorer that the docs show.

    python tests/pictures.py runs/demo --image 0 --lens 62

Image `--image` must have attribution maps (`fgdiag attribute`) and image `--lens` a token lens (`fgdiag lens`).
"""

import argparse
import shutil
import threading
from pathlib import Path
from typing import Any

from fgdiag_explorer import create_app
from playwright.sync_api import sync_playwright
from werkzeug.serving import make_server

FOLDER = Path(__file__).parent.parent / "docs" / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> None:
    """Serve the run, and write what a browser shows."""
    parser = argparse.ArgumentParser(description="Pictures of the explorer for the docs.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--image", type=int, default=0)
    parser.add_argument("--lens", type=int, default=62)
    asked = parser.parse_args()
    server = make_server("127.0.0.1", 0, create_app([asked.run]).server, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=next(filter(None, map(shutil.which, BROWSERS))), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 1200})
        for name, view, heading in (
            ("overview", "overview", None),
            ("confusion", "confusion?level=fine", None),
            ("maps", f"images?image={asked.image}", "What in it speaks for its class"),
            ("lens", f"images?image={asked.lens}&layer=llm.28", "What its tokens say in words"),
        ):
            page.goto(f"http://127.0.0.1:{server.port}/{view}")
            page.wait_for_selector("#body .js-plotly-plot .main-svg")
            page.wait_for_load_state("networkidle")
            page.wait_for_timeout(1500)  # until plotly has drawn all of them
            shoot(page, FOLDER / f"explorer-{name}.png", heading)
        browser.close()
    server.shutdown()


def shoot(page: Any, path: Path, heading: str | None) -> None:
    """Write what is in sight, or the section below a heading."""
    if heading is None:
        page.screenshot(path=path)
    else:
        page.add_style_tag(content="header { position: static !important; } section { padding: 14px; }")
        page.set_viewport_size({"width": 1280, "height": 2400})
        page.wait_for_timeout(800)
        page.locator("section", has=page.get_by_role("heading", name=heading)).last.screenshot(path=path)
        page.set_viewport_size({"width": 1280, "height": 1200})


if __name__ == "__main__":
    main()
