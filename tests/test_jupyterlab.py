"""JupyterLab in a real browser runs the first page from top to bottom"""
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from conftest import ROOT

START = "nbs/start/10_quickstart.ipynb"
MINUTES = 5


def browser():
    "Where a Chromium or Chrome is, or None."
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return os.environ.get("FTKIT_BROWSER") or next(filter(None, map(shutil.which, names)), None)


@pytest.fixture
def lab(tmp_path):
    "A JupyterLab of its own on a copy of the project: (address, folder)."
    root = tmp_path / "project"
    for name in ("nbs", "ftkit"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {name: str(tmp_path / name.lower()) for name in
           ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")}
    news = Path(own["JUPYTERLAB_SETTINGS_DIR"], "@jupyterlab", "apputils-extension", "notification.jupyterlab-settings")
    news.parent.mkdir(parents=True)
    news.write_text('{"fetchNews": "false", "checkForUpdates": false}', encoding="utf-8")
    env = os.environ | own | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]), "PYTHONPATH": str(root)}
    # The kernel chooses its own way to draw.
    env.pop("MPLBACKEND", None)
    log = open(tmp_path / "lab.log", "w", encoding="utf-8")
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0",
         "--IdentityProvider.token=", f"--ServerApp.root_dir={root}"], env=env, stdout=log, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/api/status", timeout=2).read()
                break
            except OSError:
                assert server.poll() is None, (tmp_path / "lab.log").read_text(encoding="utf-8")[-2000:]
                time.sleep(0.5)
        else:
            pytest.fail("JupyterLab did not start")
        yield address, root
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
        log.close()


@pytest.mark.slow
def test_run_all_cells(lab, tmp_path):
    if not (ROOT / START).exists():
        pytest.skip(f"{START} is not there yet")
    address, root = lab
    outside = []

    def only_here(route):
        if route.request.url.startswith((address, address.replace("http", "ws"), "data:", "blob:")):
            route.continue_()
        else:
            outside.append(route.request.url)
            route.abort()

    with playwright.sync_playwright() as play:
        window = play.chromium.launch_persistent_context(
            str(tmp_path / "profile"), headless=True, executable_path=browser(), viewport=dict(width=1400, height=1000),
            args=["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
                  "--disable-component-update", "--disable-sync"])
        window.route("**/*", only_here)
        page = window.pages[0]
        page.set_default_timeout(90_000)
        page.goto(f"{address}/lab/tree/{START}?reset")
        page.wait_for_selector(".jp-Notebook")
        # The status bar, not the notebook's own indicator: that one says idle before the kernel is connected.
        ready = page.locator("#jp-main-statusbar").get_by_text(re.compile(r"\) \| Idle$")).first
        ready.wait_for()
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        prompts = "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(e => e.textContent)"
        page.wait_for_function(f"{prompts}.some(t => t !== '[ ]:' && t !== '')")
        page.wait_for_function(f"{prompts}.every(t => t !== '[*]:')", timeout=MINUTES * 60_000)
        ready.wait_for()
        page.keyboard.press("Control+s")
        page.get_by_text("Saving completed").first.wait_for()
        window.close()

    cells = [c for c in json.loads((root / START).read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code" and "".join(c["source"]).strip()]
    errors = [out for c in cells for out in c["outputs"] if out["output_type"] == "error"]
    assert not errors, "\n".join(errors[0]["traceback"])[-2000:]
    assert all(c["execution_count"] for c in cells), "a cell did not run"
    assert sum(bool(c["outputs"]) for c in cells) >= 3
    assert not [url for url in outside if not url.startswith("chrome")], "the page asked for something outside"


playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("jupyterlab", reason="JupyterLab is not installed")
if not browser():
    pytest.skip("no Chromium or Chrome is installed (Debian: apt install chromium; or set FTKIT_BROWSER)", allow_module_level=True)
