"""A real Chromium without a window, and what the tests ask of a page in it."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from selenium.webdriver import Chrome

PHONE = (390, 844)
DESKTOP = (1360, 900)


def why_not() -> str | None:
    """Return why there is no browser here, or ``None`` if there is one."""
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            return f"{program} is not installed: apt-get install chromium chromium-driver"
    return None if find_spec("selenium") else "selenium is not installed: pip install -r requirements-dev.txt"


def start() -> Chrome:
    """Start the browser; the caller quits it."""
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    # Chromium's sandbox does not start as root, and the pages are the tests' own.
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return Chrome(options=options, service=Service(shutil.which("chromedriver")))


class Page:
    """The page that the browser shows."""

    def __init__(self, browser: Chrome) -> None:
        self.browser = browser

    def open(self, path: Path, hash: str = "", *, size: tuple[int, int] = DESKTOP, dark: bool = False) -> None:
        """Show a file in a window of ``size`` pixels, as a new document."""
        self.browser.get("about:blank")
        self.browser.get_log("browser")
        self.browser.get_log("performance")
        width, height = size
        self._devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._devtools("Emulation.setEmulatedMedia", features=[scheme])
        self.browser.get(path.as_uri() + hash)

    def run(self, script: str, *arguments: Any) -> Any:
        """Return what JavaScript returns."""
        return self.browser.execute_script(script, *arguments)

    def texts(self, selector: str) -> list[str]:
        """Return the text of the elements that can be seen."""
        return self.run(
            """return [...document.querySelectorAll(arguments[0])]
                 .filter(e => e.checkVisibility()).map(e => e.innerText.trim())""",
            selector,
        )

    def click(self, selector: str) -> None:
        """Click an element."""
        self.browser.find_element("css selector", selector).click()

    def press(self, *keys: str) -> None:
        """Press keys where the focus is."""
        from selenium.webdriver import ActionChains

        ActionChains(self.browser).send_keys(*keys).perform()

    def choose(self, name: str, value: str) -> None:
        """Choose the option of a filter."""
        from selenium.webdriver.support.ui import Select

        Select(self.browser.find_element("name", name)).select_by_value(value)

    def console(self) -> list[str]:
        """Return what the page wrote to the console since it was opened, or was complained of there."""
        return [entry["message"] for entry in self.browser.get_log("browser")]

    def requests(self) -> list[str]:
        """Return what was requested since the page was opened, the page itself included."""
        events = (json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance"))
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]

    def without_scripts(self, without: bool) -> None:
        """Say whether pages that are opened from now on may run scripts."""
        self._devtools("Emulation.setScriptExecutionDisabled", value=without)

    def static_texts(self) -> str:
        """Return what can be seen, without a script of the page's own."""
        # Scripts of the tests run in the page, too: the accessibility tree is what the browser shows without them.
        nodes = self.browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        return "\n".join(str(node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"])

    def screenshot(self, path: Path) -> None:
        """Write what can be seen as PNG."""
        path.write_bytes(self.browser.get_screenshot_as_png())

    def _devtools(self, command: str, **parameters: Any) -> None:
        self.browser.execute_cdp_cmd(command, parameters)

    def printed(self, directory: Path) -> list[str]:
        """Return the texts of the page's sheets of paper."""
        data = self.browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})["data"]
        file = directory / "page.pdf"
        file.write_bytes(base64.b64decode(data))
        text = subprocess.run(["pdftotext", "-layout", file, "-"], check=True, capture_output=True, encoding="utf-8")
        return text.stdout.rstrip("\f").split("\f")
