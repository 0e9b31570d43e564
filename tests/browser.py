"""Headless Chromium: what a page becomes in a real browser."""

import http.server
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from urllib.parse import unquote

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
    "--virtual-time-budget=8000", "--window-size=1440,900",
)  # fmt: skip
_PHONE = '<!DOCTYPE html><iframe style="width:390px;height:844px;border:0" src="{name}"></iframe>'
_PROBE = """<script>
addEventListener("load", () => setTimeout(() => {
  const boxes = [...document.querySelectorAll(".chart")];
  const shown = () => boxes.filter((box) => box.dataset.drawn === "1" && box.querySelector(".main-svg")).length;
  const facts = { charts: boxes.length, first: shown(), redrawn: 0, options: 0 };
  const root = document.documentElement;
  const wide = [...document.querySelectorAll("section *")].filter((e) => !e.closest(".scroll, svg"));
  facts.overflow = Math.max(...wide.map((e) => e.getBoundingClientRect().right)) - root.clientWidth;
  facts.scroll = root.scrollWidth - root.clientWidth;
  facts.width = root.clientWidth;
  facts.font = document.querySelector(".chart text")?.style.fill ?? "";
  facts.body = getComputedStyle(document.body).backgroundColor;
  for (const select of document.querySelectorAll("select")) {
    for (const option of select.options) {
      select.value = option.value;
      const box = select.closest("figure").querySelector(".chart");
      box.removeAttribute("data-drawn");
      select.dispatchEvent(new Event("change"));
      facts.options += 1;
    }
  }
  const table = document.querySelector("details table");
  if (table) {
    table.tHead.rows[0].cells[0].firstElementChild.click();
    table.tHead.rows[0].cells[0].firstElementChild.click();
    facts.sorted = [...table.tBodies[0].rows].slice(0, 3).map((row) => Number(row.cells[0].textContent));
    const search = document.querySelectorAll("details input")[0];
    search.value = "no such row"; search.dispatchEvent(new Event("input"));
    facts.left = [...search.parentElement.querySelectorAll("tbody tr")].filter((row) => !row.hidden).length;
  }
  setTimeout(() => {
    facts.redrawn = shown();
    new Image().src = "/facts?" + encodeURIComponent(JSON.stringify(facts));
  }, 1500);
}, 1500));
</script></body>"""


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and keeps what is asked for."""

    asked: list

    def do_GET(self):
        self.server.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_):
        pass


def open_page(page: Path, *, probe: bool = False, phone: bool = False, dark: bool = False) -> dict:
    """Open a page through a server of this process.

    Args:
        page: The file.
        probe: Add a script that tries every choice, sorts and filters; it needs a policy that lets it, which is
            loosened in a copy.
        phone: Give the page 390 x 844 pixels.
        dark: Say that the reader prefers dark.

    Returns:
        `dom`, the document as it became; `console`, its lines; `asked`, the requests that the server saw beside the
        page; `facts`, what the probe found.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = page.read_text(encoding="utf-8")
        if probe:
            text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text, count=1)
            head, _, tail = text.rpartition("</body>")
            text = head + _PROBE + tail
        (folder / "page.html").write_text(text, encoding="utf-8")
        (folder / "phone.html").write_text(_PHONE.format(name="page.html"))
        with http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), lambda *a: _Handler(*a, directory=str(folder))
        ) as server:
            server.asked = []
            threading.Thread(target=server.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{server.server_address[1]}/{'phone' if phone else 'page'}.html"
            scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
            proxy = "--proxy-server=127.0.0.1:1"  # every other host is unreachable: a request to one shows as an error
            argv = [CHROMIUM, *_FLAGS, scheme, proxy, "--proxy-bypass-list=127.0.0.1",
                    f"--user-data-dir={folder / 'profile'}", "--dump-dom", url]  # fmt: skip
            done = subprocess.run(argv, capture_output=True, text=True, timeout=120, env={**os.environ, "HOME": name})
            server.shutdown()
    facts = [a for a in server.asked if a.startswith("/facts?")]
    own = {"/page.html", "/phone.html", *facts}
    return {
        "dom": done.stdout,
        "console": [line for line in done.stderr.splitlines() if "CONSOLE" in line],
        "asked": [a for a in server.asked if a not in own],
        "facts": _decode(facts[-1]) if facts else {},
    }


def _decode(query):
    return json.loads(unquote(query.removeprefix("/facts?")))
