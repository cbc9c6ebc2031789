"""The page of tools/demo.py in a headless Chromium: drawn on, typed in to, dragged.

It needs gradio (requirements-demo.txt), selenium (pip), and Chromium with its driver
(on Debian: chromium and chromium-driver).
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from registry import ROOT, load
from small_runs import write_run

pytestmark = pytest.mark.slow

gradio = pytest.importorskip("gradio", reason="gradio is missing: requirements-demo.txt")
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is missing")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
if CHROMIUM is None or DRIVER is None:
    pytest.skip("Chromium or its driver is missing", allow_module_level=True)

from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

# One run of each kind of page, in the order of the tabs.
RUNS = (
    "dcgan",
    "cgan_mnist",
    "infogan",
    "text2img",
    "pix2pix",
    "context_encoder",
    "cyclegan",
    "stargan",
    "spade",
    "srgan",
    "pix2pixhd",
)
THUMBNAILS = ".thumbnail-item"
CLICK_TAB = """
for (const button of document.querySelectorAll("button"))  // some lie in a menu
  if (button.textContent.trim() === arguments[0]) button.click();
"""
SECONDS = 60  # for what may compile kernels first


# ---- the server ----


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def amplify(folder, start, times):
    """Makes some weights larger: untrained networks do not care about sentences."""
    path = folder / "checkpoint_last.npz"
    with np.load(path) as file:
        arrays = dict(file)
    names = [name for name in arrays if name.startswith(start)]
    assert names
    for name in names:
        arrays[name] = times * arrays[name]
    np.savez(path, **arrays)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The process of tools/demo.py, and its address."""
    folder = tmp_path_factory.mktemp("demo")
    runs = [write_run(name, folder / name) for name in RUNS]
    amplify(runs[RUNS.index("text2img")], "averaged/project", 100)
    port = free_port()
    command = [sys.executable, ROOT / "tools/demo.py", *runs, "--port", str(port)]
    environment = {**os.environ, "http_proxy": "http://127.0.0.1:9", "TMPDIR": str(folder)}
    process = subprocess.Popen(
        [*command, "--no_browser"], stdout=subprocess.PIPE, text=True, env=environment
    )
    for line in process.stdout:
        if "The page is at" in line:
            break
    assert process.poll() is None
    yield process, f"http://127.0.0.1:{port}/"
    process.terminate()
    assert process.wait(30) == 0
    assert not list(folder.glob("demo_*"))  # the uploaded files


@pytest.fixture(scope="module")
def browser(server):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--window-size=1280,1600"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    service = webdriver.ChromeService(DRIVER)
    browser = webdriver.Chrome(options=options, service=service)
    _, address = server
    browser.get(address)
    wait_for(lambda: browser.find_elements(By.CSS_SELECTOR, "button[role=tab]"))
    yield browser
    browser.quit()


# ---- what is on the page ----


def wait_for(condition):
    """The first true value of a condition; fails after SECONDS."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            value = condition()
        except Exception as error:
            if "StaleElement" not in type(error).__name__:
                raise
            value = None
        if value:
            return value
        time.sleep(0.05)
    pytest.fail("the page did not answer")


class Tab:
    """The page of one run."""

    def __init__(self, browser, name):
        self.browser = browser
        browser.execute_script(CLICK_TAB, name)
        self.panel = wait_for(self.shown_panel)
        wait_for(lambda: settled(lambda: [e.rect for e in self.all("input, canvas")], 0.5))

    def shown_panel(self):
        panels = self.browser.find_elements(By.CSS_SELECTOR, "div[role=tabpanel]")
        return next((panel for panel in panels if panel.is_displayed()), None)

    def all(self, selector):
        return self.panel.find_elements(By.CSS_SELECTOR, selector)

    def picture(self, label="Picture"):
        """The address of a picture; it changes with its content."""
        for block in self.all(".picture"):
            if block.text.startswith(label):
                images = block.find_elements(By.CSS_SELECTOR, "img")
                return images[0].get_attribute("src") if images else ""
        return ""

    def after(self, act, label="Picture"):
        """The address of a picture after something has changed it."""
        before = self.picture(label)
        act()
        return wait_for(lambda: self.picture(label) not in (before, "") and self.picture(label))

    def button(self, text):
        return next(b for b in self.all("button") if b.text.startswith(text))

    def field(self, label):
        for block in self.all("label"):
            if block.text.startswith(label):
                return block.find_element(By.CSS_SELECTOR, "input, textarea")
        raise AssertionError(f"no field {label}")

    def write(self, label, text):
        field = self.field(label)
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(text)

    def drag(self, index, share):
        """Drags a slider with the mouse to a share of its length."""
        slider = self.all("input[type=range]:not(.brush)")[index]
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", slider)
        half = slider.size["width"] / 2
        value = float(slider.get_attribute("value"))
        low = float(slider.get_attribute("min"))
        high = float(slider.get_attribute("max"))
        start = ((value - low) / (high - low) - 0.5) * 2 * (half - 8)
        actions = webdriver.ActionChains(self.browser)
        actions.move_to_element_with_offset(slider, int(start), 0).click_and_hold()
        actions.move_to_element_with_offset(slider, int((2 * share - 1) * (half - 8)), 0)
        actions.release().perform()

    def stroke(self, points):
        """Draws a line on the canvas through points in [-1, 1]."""
        canvas = self.all("canvas")[0]
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
        half = canvas.size["width"] / 2
        actions = webdriver.ActionChains(self.browser, duration=20)
        for i, (x, y) in enumerate(points):
            actions.move_to_element_with_offset(canvas, int(x * half), int(y * half))
            if i == 0:
                actions.click_and_hold()
        actions.release().perform()

    def upload(self, path, index=0):
        self.all("input[type=file]")[index].send_keys(str(path))


def messages(browser):
    return [toast.text for toast in browser.find_elements(By.CSS_SELECTOR, ".toast-body")]


def assert_message(browser, act, part):
    """Something makes a message appear, which is then closed."""
    act()
    wait_for(lambda: any(part in text for text in messages(browser)))
    for button in browser.find_elements(By.CSS_SELECTOR, ".toast-close"):
        browser.execute_script("arguments[0].click()", button)
    wait_for(lambda: not messages(browser))


# ---- each kind of input ----


def test_seeds_and_a_walk(browser):
    tab = Tab(browser, "dcgan")
    first = tab.after(lambda: tab.drag(0, 1.0))
    second = tab.after(lambda: tab.write("From seed", "77"), "On the way")
    assert first and second
    tab.after(tab.button("New seeds").click)
    assert tab.field("From seed").get_attribute("value") != "77"
    assert_message(browser, lambda: tab.write("To seed", "abc"), "whole number")
    assert_message(browser, lambda: tab.write("To seed", "9" * 1000), "whole number")
    assert_message(browser, lambda: tab.write("To seed", "<b>x</b>"), "<b>x</b>")  # no HTML
    tab.after(lambda: tab.write("To seed", "5"), "On the way")


def test_twenty_quick_clicks_end_with_the_picture_of_the_seeds(browser):
    tab = Tab(browser, "dcgan")
    button = tab.button("New seeds")
    for _ in range(20):
        button.click()
    last = wait_for(lambda: settled(lambda: tab.picture("On the way")))
    seeds = [tab.field(name).get_attribute("value") for name in ("From seed", "To seed")]
    tab.after(lambda: tab.write("From seed", "1"), "On the way")
    tab.after(lambda: tab.write("From seed", seeds[0]), "On the way")
    again = wait_for(lambda: settled(lambda: tab.picture("On the way")))
    assert content_of(again) == content_of(last)  # gradio names files by their content


def settled(read, seconds=2):
    """What `read` returns, if it stays the same for a while."""
    value = read()
    time.sleep(seconds)
    return value if read() == value else None


def content_of(address):
    return Path(address).parent.name


def test_a_number(browser):
    tab = Tab(browser, "cgan_mnist")
    tab.after(lambda: tab.write("Number", "5550123"))
    tab.after(tab.button("Other handwriting").click)
    assert_message(browser, lambda: tab.write("Number", "12a"), "a is none")
    assert_message(browser, lambda: tab.write("Number", "1" * 1000), "at most 40")
    tab.after(lambda: tab.write("Number", "7"))


def test_codes(browser):
    tab = Tab(browser, "infogan")
    tab.after(lambda: tab.drag(0, 1.0))
    tab.after(lambda: tab.drag(1, 0.2))
    tab.after(tab.button("Other noise").click)


def test_a_sentence(browser):
    tab = Tab(browser, "text2img")

    def draw(sentence):
        tab.write("Sentence", sentence)
        tab.button("Draw").click()

    tab.after(lambda: draw("a bold red three on black"))
    tab.after(lambda: draw("黑底上的红色粗体数字三"))
    tab.after(tab.button("Other noise").click)
    assert_message(browser, lambda: draw(Keys.DELETE), "Write a sentence")
    field = tab.field("Sentence")
    script = (
        "arguments[0].value = 'x'.repeat(10000); arguments[0].dispatchEvent(new Event('input'))"
    )
    browser.execute_script(script, field)
    assert_message(browser, tab.button("Draw").click, "first 201 bytes")
    tab.after(lambda: draw("a blue zero"))


def test_outlines(browser):
    tab = Tab(browser, "pix2pix")
    assert_message(browser, tab.button("Clear").click, "canvas is empty")
    first = tab.after(lambda: tab.stroke([(-0.5, -0.5), (0.5, -0.5), (0, 0.7)]))
    tab.after(lambda: tab.stroke([(-0.5, 0.5), (0.5, 0.5)]))
    tab.after(tab.button("Undo").click)
    assert content_of(wait_for(lambda: settled(tab.picture))) == content_of(first)
    tab.after(tab.all(THUMBNAILS)[3].click)


def test_holes(browser, tmp_path):
    """Brushed on a test picture and on an upload; "Clear" brings the picture back."""
    tab = Tab(browser, "context_encoder")

    def filled():
        return tab.picture("Filled")

    first = content_of(wait_for(lambda: settled(filled)))
    tab.after(lambda: tab.stroke([(-0.7, -0.7), (-0.3, -0.7)]), "Filled")
    tab.after(tab.button("Clear").click, "Filled")
    assert content_of(wait_for(lambda: settled(filled))) == first
    tab.after(tab.all(THUMBNAILS)[3].click, "Filled")
    tab.upload(good_file(tmp_path))
    wait_for(lambda: not filled())  # it has no hole yet
    tab.after(lambda: tab.stroke([(0, 0), (0.3, 0.3)]), "Filled")


def bad_files(folder):
    text = folder / "text.png"
    text.write_text("no picture")
    broken = folder / "broken.png"
    Image.effect_noise((64, 64), 90).save(broken)
    broken.write_bytes(broken.read_bytes()[:500])
    large = folder / "large.png"
    Image.new("1", (20_000, 20_000)).save(large)
    return text, broken, large


def good_file(folder, name="good.png", colour="red"):
    Image.new("RGB", (90, 60), colour).save(folder / name)
    return folder / name


@pytest.mark.parametrize(
    ("name", "label"),
    [("cyclegan", "Translation"), ("stargan", "Translation"), ("srgan", "Enlarged")],
)
def test_uploads(browser, name, label, tmp_path):
    tab = Tab(browser, name)
    for file in bad_files(tmp_path):
        assert_message(browser, lambda file=file: tab.upload(file), "cannot be used")
    tab.upload(good_file(tmp_path))
    wait_for(lambda: tab.picture(label))
    gif = good_file(tmp_path, "moving.gif", "blue")
    assert_message(browser, lambda: tab.upload(gif), "first frame")
    tab.after(tab.all(THUMBNAILS)[2].click, label)


def test_attributes(browser):
    """One of those that exclude each other gives way to another one."""
    script = load("stargan")
    data = script.load(script.parse_args([]), "test")
    one, other = (data.names.index(name) for name in data.exclusive[:2])
    tab = Tab(browser, "stargan")
    tab.after(tab.all(THUMBNAILS)[4].click, "Translation")
    tab.after(lambda: tab.drag(one, 0.5), "Translation")
    tab.after(lambda: tab.drag(other, 1.0), "Translation")
    sliders = tab.all("input[type=range]")
    wait_for(lambda: float(sliders[one].get_attribute("value")) == 0)


def test_a_label_map(browser, tmp_path):
    tab = Tab(browser, "spade")
    tab.all(".palette button")[2].click()
    tab.after(lambda: tab.stroke([(-0.8, 0.2), (0.8, 0.2)]))
    tab.all(".fill")[0].click()
    tab.all(".palette button")[1].click()
    tab.after(lambda: tab.stroke([(0, 0.9)]))
    tab.after(tab.button("Random style").click)
    tab.after(lambda: tab.upload(good_file(tmp_path)))
    assert tab.picture("Style")


def test_objects_of_a_map(browser):
    """A colour is an object; the last one, which is painted here, gets another look."""
    tab = Tab(browser, "pix2pixhd")
    assert len(tab.all(".palette button")) == 8
    tab.all(".palette button")[7].click()
    tab.after(lambda: tab.stroke([(-0.8, 0.2), (0.8, 0.2)]))
    tab.after(tab.button("Another look for this object").click)
    tab.after(tab.button("Random looks").click)
    tab.after(tab.all(THUMBNAILS)[3].click)
    assert_message(browser, lambda: tab.write("Seed of the looks", "x"), "whole number")


# ---- what the page asks for, and what it listens on ----


def test_nothing_comes_from_elsewhere(browser, server):
    """All tabs have been used by the tests above."""
    _, address = server
    asked = set()
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.add(message["params"]["request"]["url"])
    assert len(asked) > 20
    elsewhere = {url for url in asked if not url.startswith((address, "data:", "blob:"))}
    assert elsewhere == set()
    refused = [entry for entry in browser.get_log("browser") if "Content Security" in str(entry)]
    assert refused == []  # the page does not even try


def test_it_listens_on_this_machine_alone(server):
    process, address = server
    inodes = set()
    for link in Path(f"/proc/{process.pid}/fd").iterdir():
        found = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(link))
        if found:
            inodes.add(found[1])
    listening = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process.pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in inodes:
                listening.add(words[1])
    port = int(address.rstrip("/").rsplit(":", 1)[1])
    assert listening == {f"0100007F:{port:04X}"}


def test_the_page_is_narrow_on_a_phone(browser):
    """Nothing is wider than the screen."""
    browser.set_window_size(500, 844)  # Chromium's narrowest window
    for name in RUNS:
        Tab(browser, name)
        width = browser.execute_script("return document.documentElement.scrollWidth")
        assert width <= browser.execute_script("return window.innerWidth"), name
    browser.set_window_size(1280, 1600)
