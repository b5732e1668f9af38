"""The page of a server in a real browser: by keyboard, on a phone, in the dark, with a table."""

import csv
import shutil
from dataclasses import replace

import pytest
from fake_method import FakeJudge
from playwright.sync_api import Error, sync_playwright
from serving import FILMS, all_judges, films, first_word, running
from specs import label_task

from adjudge.evaluation.abstention import Decision
from adjudge.ship.serving.judges import ServedJudge
from adjudge.ship.serving.limits import Limits

PHONE = {"width": 420, "height": 800}


@pytest.fixture(scope="module")
def browser():
    system = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=system, args=["--no-sandbox"])
        except Error as error:
            pytest.skip(f"no Chromium can be started here (playwright install chromium): {error.message[:200]}")
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def url():
    with running(all_judges()) as url:
        yield url


@pytest.fixture
def open_page(browser):
    """Return a function that opens an address; at the end nothing came from elsewhere, and no error was logged."""
    pages, complaints, addresses = [], [], []

    def open_page(url, **options):
        context = browser.new_context(viewport=PHONE, **options)
        context.set_default_timeout(20_000)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: addresses.append((url, request.url)))
        page.goto(url)
        pages.append(context)
        return page

    yield open_page
    for context in pages:
        context.close()
    assert [address for url, address in addresses if not address.startswith((url, "data:", "blob:"))] == []
    assert [text for text in complaints if "status of 4" not in text] == []


def fits(page):
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_text_is_judged_by_keyboard_alone(open_page, url):
    page = open_page(url)
    page.wait_for_selector("#field-text")
    assert page.inner_text("h1") == "Films"
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "field-text":
            break
    page.keyboard.type("good plot & <b>warm</b>")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#answer:not([hidden])")
    assert page.inner_text("#label") == "good"
    assert page.inner_text("#chances").split() == ["bad", "50.0", "%", "good", "50.0", "%"]
    page.fill("#field-text", "so so")
    page.click("#texts button")
    page.wait_for_selector("#label.odd")
    assert page.inner_text("#label") == "unreadable"
    assert fits(page)


def test_numbers_and_several_fields(open_page, url):
    page = open_page(url)
    page.wait_for_selector("#field-text")
    page.select_option("#model", "stars")
    page.fill("#field-text", "abc")
    page.click("#texts button")
    page.wait_for_selector("#answer:not([hidden])")
    assert page.inner_text("#label") == "3.0"
    page.select_option("#model", "pairs")
    page.fill("#field-first", "a")
    page.fill("#field-second", "a")
    page.click("#texts button")
    page.wait_for_selector("#answer:not([hidden])")
    assert page.inner_text("#label") == "Yes"


def choose_file(page, content, name="films.csv"):
    payload = {"name": name, "mimeType": "text/csv", "buffer": content}
    page.set_input_files("#file", payload)


def test_a_table_is_judged_and_downloaded(open_page, url, tmp_path):
    page = open_page(url)
    page.wait_for_selector("#field-text")
    lines = ["\ufeffid,review,label\r\n", '1,"good, ""really""\nvery",x\r\n', "2,=bad,y\r\n", "3,bad 🎬,\r\n"]
    lines += [f"{n},good {n},z\r\n" for n in range(4, 150)]
    choose_file(page, "".join(lines).encode())
    page.wait_for_selector("#plan:not([hidden])")
    assert "149 rows" in page.inner_text("#filefacts")
    page.select_option("#column-text", "review")
    page.click("#start")
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "films-judged.csv"
    download.value.save_as(tmp_path / "judged.csv")
    with (tmp_path / "judged.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "review", "label", "predicted_label", "p_bad", "p_good", "unreadable"]
    assert [row["predicted_label"] for row in rows[:4]] == ["", "", "bad", "good"]
    assert rows[0] == {
        **{"id": "1", "review": 'good, "really"\nvery', "label": "x", "predicted_label": ""},
        **{"p_bad": "0.5", "p_good": "0.5", "unreadable": "true"},
    }
    assert len(rows) == 149
    assert page.locator("#preview tbody tr").count() == 50
    assert "2 unreadable" in page.inner_text("#progresstext")
    assert fits(page)


def test_what_was_judged_before_a_failure_is_offered(open_page, url, tmp_path):
    page = open_page(url)
    page.wait_for_selector("#field-text")
    choose_file(page, ("text\n" + "good film\n" * 64 + "bad \0 film\ngood end\n").encode())
    page.click("#start")
    page.wait_for_selector("#problem:not([hidden])")
    assert "NUL" in page.inner_text("#problem")
    assert "Stopped after 64 of 66 rows" in page.inner_text("#progresstext")
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "judged.csv")
    rows = list(csv.DictReader((tmp_path / "judged.csv").read_text().replace("\0", "").splitlines()))
    assert [row["label"] for row in rows] == ["good"] * 64 + ["", ""]


def test_sets_of_labels_have_a_probability_per_label(open_page, tmp_path):
    spec = label_task("sport", "politics", several="words", metrics=("micro_f1",))

    class Marginals(FakeJudge):
        def judge(self, examples, **options):
            shares = {"sport": 0.9, "politics": 0.2}
            return [replace(each, probabilities=shares) for each in super().judge(examples, **options)]

    with running([ServedJudge("news", spec, Marginals(spec, lambda _: "sport"), "sft", run="news")]) as url:
        page = open_page(url)
        page.wait_for_selector("#field-text")
        choose_file(page, b"text\na match\n")
        page.click("#start")
        with page.expect_download() as download:
            page.click("#download")
        download.value.save_as(tmp_path / "judged.csv")
    assert (tmp_path / "judged.csv").read_text().splitlines()[1] == "a match,sport,0.9,0.2,false"


def test_answers_that_are_held_back_are_marked(open_page, tmp_path):
    with running([films(decision=Decision(minimum={"good": 0.9, "bad": 0.0}))]) as url:
        page = open_page(url)
        page.wait_for_selector("#field-text")
        page.fill("#field-text", "good plot")
        page.click("#texts button")
        page.wait_for_selector("#label.odd")
        assert page.inner_text("#label") == "abstained"
        choose_file(page, b"text\ngood film\nbad film\n")
        page.wait_for_selector("#plan:not([hidden])")
        page.click("#start")
        with page.expect_download() as download:
            page.click("#download")
        download.value.save_as(tmp_path / "judged.csv")
    with (tmp_path / "judged.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["label"], row["unreadable"], row["abstained"]) for row in csv.DictReader(file)]
    assert rows == [("", "false", "true"), ("bad", "false", "false")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "The file is empty."),
        (b"text\n", "has no rows"),
        (b"text;label\na;b\n", "separated by commas"),
        (b"text,text\na,b\n", "The column 'text' is there twice"),
        (b"text,label\na,b,c\n", "Line 2 has 3 cells"),
        (b'text\n"a\n', "Line 2: a quote is opened and never closed"),
        (b"text\n\xff\n", "not UTF-8"),
    ],
)
def test_tables_that_cannot_be_read(open_page, url, content, message):
    page = open_page(url)
    page.wait_for_selector("#field-text")
    choose_file(page, content)
    page.wait_for_selector("#problem:not([hidden])")
    assert message in page.inner_text("#problem")


def test_an_empty_cell_is_named_before_anything_is_judged(open_page, url):
    page = open_page(url)
    page.wait_for_selector("#field-text")
    choose_file(page, b"text,n\ngood,1\n ,2\n")
    page.click("#start")
    page.wait_for_selector("#problem:not([hidden])")
    assert "Line 3: the cell in 'text' is empty" in page.inner_text("#problem")


def test_a_file_can_be_dropped(open_page, url):
    page = open_page(url)
    page.wait_for_selector("#field-text")
    page.evaluate(
        """() => {
            const data = new DataTransfer();
            data.items.add(new File(["text\\ngood\\nbad\\n"], "two.csv"));
            const drop = new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
            document.getElementById("drop").dispatchEvent(drop);
        }"""
    )
    page.wait_for_selector("#plan:not([hidden])")
    page.keyboard.press("Enter")  # the button that judges has the focus
    page.wait_for_selector("#download:not([hidden])")
    assert page.locator("#preview tbody tr").count() == 2


def test_the_page_follows_the_dark(open_page, url):
    def colours(scheme):
        page = open_page(url, color_scheme=scheme)
        return page.evaluate("[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]")

    assert colours("light") == ["rgb(251, 250, 246)", "rgb(27, 29, 34)"]
    assert colours("dark") == ["rgb(21, 23, 27)", "rgb(236, 234, 228)"]


def test_a_key_is_asked_for(open_page):
    with running([films()], key="sesame") as url:
        page = open_page(url)
        page.wait_for_selector("#keyform:not([hidden])")
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("#problem:not([hidden])")
        page.fill("#key", "sesame")
        page.keyboard.press("Enter")
        page.wait_for_selector("#field-text")
        assert page.locator("#keyform").is_hidden()


def test_an_analysis_is_shown_where_the_judge_writes_one(open_page, monkeypatch):
    class Analysing(FakeJudge):
        def judge(self, examples, **options):
            from dataclasses import replace

            text = " <b>Warm</b>, hence good.</Analysis>\n<Judgement> good"
            return [replace(each, text=text) for each in super().judge(examples, **options)]

    monkeypatch.setattr(ServedJudge, "analysis", "before")
    with running([ServedJudge("films", FILMS, Analysing(FILMS, first_word), run="films")], limits=Limits()) as url:
        page = open_page(url)
        page.fill("#field-text", "good")
        page.click("#texts button")
        page.wait_for_selector("#analysisbox:not([hidden])")
        assert page.inner_text("#analysis") == "<b>Warm</b>, hence good."
