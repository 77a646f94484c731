"""The page of `zoo demo` in a browser: each tab is used once, and shows what it promises."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

gr = pytest.importorskip("gradio", reason="needs the extra [demo]")
webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")

from selenium.common.exceptions import StaleElementReferenceException  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
PATIENCE = 60  # seconds for an answer; most take less than one
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,1500"),
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader"),  # the canvas needs WebGL
)

pytestmark = pytest.mark.skipif(
    BROWSER is None or DRIVER is None, reason="needs a browser: apt install chromium chromium-driver"
)


class Page:
    """The page as a visitor sees it."""

    def __init__(self, driver: Any, pictures: Path) -> None:
        self.driver, self.pictures = driver, pictures

    def until(self, condition: Callable[[], Any], message: str) -> Any:
        """What a condition gives once it is true; elements can vanish while it looks at them."""
        wait = WebDriverWait(self.driver, PATIENCE, 0.1, [StaleElementReferenceException])
        return wait.until(lambda _: condition(), message)

    def find(self, path: str) -> Any:
        """The visible element at an XPath, once there is one."""
        found = partial(self.driver.find_elements, By.XPATH, path)
        return self.until(lambda: next((e for e in found() if e.is_displayed()), None), f"nothing is at {path}")

    def click(self, path: str) -> None:
        self.until(lambda: self.find(path).click() is None, f"nothing to click is at {path}")

    def open(self, tab: str) -> None:
        self.click(f"//button[@role='tab'][normalize-space()='{tab}']")

    def press(self, button: str) -> None:
        self.click(f"//button[normalize-space()='{button}'][not(@role='tab')]")

    def sources(self) -> list[str]:
        """Addresses of the pictures that are shown now and have been loaded."""
        script = "return [...document.images].filter(i => i.checkVisibility() && i.naturalWidth > 9).map(i => i.src)"
        return [source for source in self.driver.execute_script(script) if "svg" not in source[:30]]

    def wait_for_pictures(self, number: int, other_than: list[str] | None = None) -> None:
        """Waits until at least `number` new pictures are shown; fails if there is a message of an error."""

        def is_done() -> bool:
            errors = [e.text for e in self.driver.find_elements(By.CSS_SELECTOR, ".toast-body.error")]
            assert not errors, errors
            return len(set(self.sources()) - set(other_than or [])) >= number

        self.until(is_done, f"expected {number} new pictures")

    def keep(self, name: str) -> None:
        self.driver.save_screenshot(str(self.pictures / f"{name}.png"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    from zoo.demo import app

    served = app()
    _, address, _ = served.launch(quiet=True, prevent_thread_lock=True)
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in FLAGS:
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.get(address)
    yield Page(driver, tmp_path_factory.mktemp("pictures"))
    driver.quit()
    served.close()


def test_every_tab_shows_what_it_promises(page: Page, tmp_path: Path) -> None:
    """One test, since a browser takes seconds to start and to open the page."""
    page.wait_for_pictures(8)  # those of the gallery that are in sight
    page.click("//button[contains(@class, 'thumbnail')]")
    assert "Zoo.load(" in page.find("//*[@id='facts'][contains(., 'Zoo.load')]").text
    page.keep("checkpoints")

    page.open("Draw")
    page.press("Draw")
    page.wait_for_pictures(1)
    page.keep("draw")

    page.open("Walk")
    page.wait_for_pictures(1)
    before = page.sources()
    slider = page.find("//input[@type='range'][@aria-label='range slider for Dimension 0']")
    webdriver.ActionChains(page.driver).drag_and_drop_by_offset(slider, 60, 0).perform()
    page.wait_for_pictures(1, other_than=before)
    page.press("Walk from A to B")
    page.wait_for_pictures(2, other_than=before)
    page.keep("walk")

    page.open("Pixel by pixel")
    page.press("Draw")
    page.wait_for_pictures(2)
    page.keep("pixels")

    page.open("Denoise")
    page.press("Remove noise")
    page.wait_for_pictures(3)
    page.keep("denoise")

    page.open("Rank")
    files = [tmp_path / f"{rows}.png" for rows in (4, 20, 36)]
    for rows, file in zip((4, 20, 36), files, strict=True):
        image = Image.new("L", (40, 40))
        image.paste(255, (0, 0, 40, rows))
        image.save(file)
    upload = page.driver.find_elements(By.CSS_SELECTOR, "input[type=file][multiple]")[-1]
    upload.send_keys("\n".join(map(str, files)))
    page.find("//*[contains(text(), '36')]")
    page.press("Rank")
    page.wait_for_pictures(3)
    page.keep("rank")

    page.open("Complete")  # last, since its canvas is drawn again and again, without a GPU
    page.press("Complete")  # too early
    message = page.find("//*[contains(@class, 'toast-body')]")
    assert "expected an image, found none" in message.text
    page.click("//*[contains(@class, 'toast-close')]")
    page.press("Draw an image")
    page.find("//*[@id='canvas'][not(contains(., 'Upload an image'))]")
    canvas = page.find("//*[@id='canvas']//canvas")
    page.click("//*[@id='canvas']//button[@aria-label='Brush']")
    pen = webdriver.ActionChains(page.driver)
    pen.move_to_element_with_offset(canvas, -90, 40).click_and_hold().move_by_offset(90, 0).move_by_offset(90, 20)
    pen.release().perform()
    page.press("Complete")
    page.wait_for_pictures(1)
    page.keep("complete")
