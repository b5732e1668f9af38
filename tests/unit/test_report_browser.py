"""The report in a real browser; skipped where Playwright or Chromium is not installed (neither is a dependency)."""

import shutil

import pytest
from test_report_html import comparison, page_of

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        try:
            browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"Chromium does not start: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture
def report(browser, tmp_path):
    """The page of a small comparison, 420 pixels wide, and the errors it reports."""
    page_of(comparison(tmp_path))
    page = browser.new_page(viewport={"width": 420, "height": 900})
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((tmp_path / "report.html").as_uri())
    yield page
    assert errors == []
    page.close()


def filter_of(page):
    names = ["method", "outcome", "gold", "answer", "q"]
    read = "names => names.map(name => document.querySelector('.filters').elements[name].value)"
    return dict(zip(names, page.evaluate(read, names), strict=True))


def until(page, count):
    page.wait_for_function("text => document.querySelector('.count').textContent === text", arg=count)


def test_search_looks_at_texts_and_answers_only(report):
    for words, count in (("film 3", "1 of 4 rows"), ("not sure", "1 of 4 rows"), ("tsv", "0 of 4 rows")):
        report.fill("[name=q]", words)
        until(report, count)


def test_back_and_forward_bring_the_filter_back(report):
    report.select_option("[name=method]", "sft")
    report.select_option("[name=outcome]", "wrong")
    wrong = filter_of(report)
    report.click("nav.contents a:first-child")
    report.go_back()
    assert filter_of(report) == wrong
    report.evaluate("document.querySelector('.matrix td a').click()")
    report.wait_for_function("document.querySelector('.filters').elements.gold.value === 'Negative'")
    cell = filter_of(report)
    report.go_back()
    report.wait_for_function("document.querySelector('.filters').elements.outcome.value === 'wrong'")
    assert filter_of(report) == wrong
    report.go_forward()
    report.wait_for_function("document.querySelector('.filters').elements.gold.value === 'Negative'")
    assert filter_of(report) == cell
    report.goto("about:blank")
    report.go_back()
    report.wait_for_selector(".card")
    assert filter_of(report) == cell


def test_back_to_no_filter_clears_it(report):
    before = filter_of(report)
    report.evaluate("document.querySelector('.matrix td a').click()")
    report.wait_for_function("document.querySelector('.filters').elements.gold.value === 'Negative'")
    report.go_back()
    report.wait_for_function("document.querySelector('.filters').elements.gold.value === ''")
    assert filter_of(report) == before


def test_a_wider_table_shows_that_there_is_more(report):
    box = report.get_by_label("Table of results")
    hint = box.locator("xpath=following-sibling::p[1]")
    assert box.evaluate("box => box.scrollWidth > box.clientWidth && box.classList.contains('cut-right')")
    assert hint.inner_text() == "more columns →"
    box.evaluate("box => box.scrollTo(box.scrollWidth, 0)")
    report.wait_for_function("!document.querySelector('.wide').classList.contains('cut-right')")
    assert hint.inner_text() == "← more columns"
    report.set_viewport_size({"width": 1400, "height": 900})
    hint.wait_for(state="hidden")
    assert report.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_page_is_printed_dark_on_white(report):
    report.emulate_media(media="print", color_scheme="dark")
    colours = report.evaluate(
        "(({color, backgroundColor}) => [color, backgroundColor])(getComputedStyle(document.body))"
    )
    assert colours == ["rgb(27, 29, 34)", "rgb(255, 255, 255)"]
    assert not report.is_visible(".filters") and report.is_visible(".card")
