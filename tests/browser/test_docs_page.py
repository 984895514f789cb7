"""The page that shows the API, as somebody sees it who opens it for the first time."""

import os

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

METHODS = ("get", "post", "put", "patch", "delete")


@pytest.fixture
def page(browser, server):
    browser.set_window_size(1280, 900)
    browser.get(server.url + "/docs")
    WebDriverWait(browser, 30).until(lambda b: b.find_elements(By.CSS_SELECTOR, "main section"))
    return browser


def operations(server):
    paths = server.client().get("/api/v1/openapi.json").ok()["paths"]
    return [(method, path, paths[path][method]) for path in paths for method in METHODS if method in paths[path]]


def test_every_operation_of_the_document_is_shown_and_can_be_reached_from_the_index(page, server):
    known = operations(server)
    shown = page.find_elements(By.CSS_SELECTOR, "main section")
    assert len(shown) == len(known) > 100
    text = page.find_element(By.TAG_NAME, "main").text
    for _, path, operation in known:
        assert path in text
        assert operation["summary"] in text
    links = page.find_elements(By.CSS_SELECTOR, "nav a")
    assert len(links) == len(known)
    link = links[len(links) // 2]
    target = link.get_attribute("href").split("#", 1)[1]
    page.execute_script("arguments[0].scrollIntoView()", link)
    link.click()
    top = page.execute_script("return document.getElementById(arguments[0]).getBoundingClientRect().top", target)
    assert 0 <= top < 900


def test_the_filter_leaves_what_was_asked_for(page):
    page.find_element(By.ID, "filter").send_keys("createTask")
    visible = [link.text for link in page.find_elements(By.CSS_SELECTOR, "nav a") if link.is_displayed()]
    assert visible and len(visible) < 20, visible


def test_nothing_fails_in_the_browser(page):
    wrong = [entry for entry in page.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")
             and "favicon" not in entry["message"]]
    assert not wrong


@pytest.mark.parametrize("width", [1280, 500])
def test_the_page_fits_its_window(page, width):
    page.set_window_size(width, 900)
    inner, needed = page.execute_script("return [window.innerWidth, document.documentElement.scrollWidth]")
    assert needed <= inner
    if os.environ.get("LATHE_SCREENSHOTS"):
        page.save_screenshot(os.path.join(os.environ["LATHE_SCREENSHOTS"], f"docs-{width}.png"))


def test_text_from_the_document_never_becomes_markup(page):
    assert page.find_elements(By.CSS_SELECTOR, "main script, main img, main iframe") == []
