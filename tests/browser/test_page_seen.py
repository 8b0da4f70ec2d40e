"""What somebody sees who looks at the page in a browser, and does with the keyboard."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from conftest import WIDTH, look
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By

from tests.support.care_rig import Scene
from tests.support.page_host import (
    HOSTILE,
    Silent,
    Told,
    crowded,
    hang,
    hostile,
    served,
    toy_host,
    until,
    view,
)

SHOTS = os.environ.get("MOORLINE_PAGE_SHOTS", "")
"""A directory for what is seen, for people; '': none is kept."""
CONTRAST = """
const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
const light = ([r, g, b]) => {
  const [x, y, z] = [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
};
const ground = (element) => {
  for (let each = element; each; each = each.parentElement) {
    const colour = parse(getComputedStyle(each).backgroundColor);
    if (colour.length === 3 || colour[3] > 0) return colour;
  }
  return [255, 255, 255];
};
const poor = [];
for (const each of document.querySelectorAll("body *")) {
  const says = [...each.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  if (!says || !each.checkVisibility()) continue;
  const [one, other] = [parse(getComputedStyle(each).color), ground(each)].map(light);
  const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  if (ratio < 4.5) poor.push([each.localName, each.className, each.textContent, ratio]);
}
return poor;
"""


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    scene = toy_host(tmp_path, monkeypatch)
    monkeypatch.undo()  # the browser's own commands are found again
    return scene


def text(browser: Chrome, selector: str) -> str:
    """What is read there, in one look: it may be drawn anew at any time. '': it is not there."""
    return str(
        run(browser, "return document.querySelector(arguments[0])?.innerText ?? ''", selector)
    )


def run(browser: Chrome, script: str, *values: Any) -> Any:
    return browser.execute_script(script, *values)  # type: ignore[no-untyped-call]


def press(browser: Chrome, *keys: str) -> None:
    ActionChains(browser).send_keys(*keys).perform()


def focused(browser: Chrome) -> str:
    return str(run(browser, "return document.activeElement.textContent"))


def shot(browser: Chrome, name: str) -> None:
    if SHOTS:
        browser.save_screenshot(str(Path(SHOTS) / f"{name}.png"))


def complaints(browser: Chrome) -> list[str]:
    return [str(each["message"]) for each in browser.get_log("browser")]


# --- a share hangs while one looks ----------------------------------------------------


def test_a_share_that_hangs_comes_to_the_top_while_one_looks(browser: Chrome, scene: Scene) -> None:
    with served(scene.moorline) as url:
        browser.get(url)
        assert "0 of 2 links unwell" in " ".join(text(browser, "#summary").split())
        assert "hung" not in text(browser, "#links")
        run(browser, "window.mark = 'the same page'")
        link = hang(scene, "databases")
        until(lambda: "hung" in text(browser, ".map > li:first-child"), 30)
        first = text(browser, ".map > li:first-child")
        assert "quobyte://reg/databases" in first
        assert first.count("db01") == 2
        assert "web01" not in first
        until(lambda: f"moorline abort {link} --dry-run" in text(browser, "#findings"), 30)
        assert "healthy" in text(browser, ".map > li:last-child")
        shot(browser, "hung")
        scene.host.share(link).hangs = False
        until(lambda: "hung" not in text(browser, "#links"), 30)
        assert run(browser, "return window.mark") == "the same page"
        assert complaints(browser) == []


def test_a_look_that_does_not_come_back_is_told_beside_what_is_known(browser: Chrome) -> None:
    silent = Silent()
    with served(Told([view(guest="db01")], before=silent)) as url:
        browser.get(url)
        assert "db01" in text(browser, "#volumes")
        silent.hangs = True
        try:
            told = until(lambda: _late(browser), 30)
            assert "that was asked at" in told
            assert "What is shown was known at" in told
            assert "db01" in text(browser, "#volumes")
            shot(browser, "late")
        finally:
            silent.hangs = False
            silent.release()
        until(lambda: not _late(browser), 30)


def _late(browser: Chrome) -> str:
    return text(browser, "#links .late")


def test_a_server_that_is_gone_is_told_and_what_was_known_stays(browser: Chrome) -> None:
    with served(Told([view(guest="db01")])) as url:
        browser.get(url)
        assert "as of" in text(browser, "#pulse")
    until(lambda: "has not answered since" in text(browser, "#pulse"), 30)
    assert "db01" in text(browser, "#volumes")


# --- who would do harm ----------------------------------------------------------------


def test_a_hostile_name_runs_nothing_and_is_read(browser: Chrome) -> None:
    with served(hostile(HOSTILE)) as url:
        browser.get(url)
        run(browser, "window.before = document.getElementById('links')")
        # It is drawn anew, too, and followed where it leads.
        until(lambda: _redrawn(browser), 30)
        assert HOSTILE in text(browser, "#volumes")
        browser.find_element(By.CSS_SELECTOR, "#volumes tbody a").click()
        until(lambda: browser.find_elements(By.CSS_SELECTOR, ".narrowed"), 10)
        assert HOSTILE in text(browser, ".narrowed")
        assert browser.title == "kvm07 – Moorline"
        assert browser.find_elements(By.CSS_SELECTOR, "main img, main script") == []
        assert complaints(browser) == []


def _redrawn(browser: Chrome) -> bool:
    script = """return !!document.querySelector('#summary time, #events time[data-clock]')
        && performance.getEntriesByType('resource').filter((e) => /now/.test(e.name)).length > 1"""
    return bool(run(browser, script))


def test_even_what_is_not_escaped_could_not_run(browser: Chrome) -> None:
    with served(Told()) as url:
        browser.get(url)
        run(browser, "document.body.insertAdjacentHTML('beforeend', arguments[0])", HOSTILE)
        run(
            browser,
            "const s = document.createElement('script'); s.textContent = arguments[0];"
            "document.body.append(s)",
            "document.title = 'owned'",
        )
        until(lambda: any("Content Security Policy" in each for each in complaints(browser)), 10)
        assert browser.title == "kvm07 – Moorline"


def test_a_site_whose_name_leads_here_sees_nothing(browser: Chrome) -> None:
    with served(Told([view(guest="db01")])) as url:
        there = urlsplit(url)
        browser.get(f"http://evil.example:{there.port}{there.path}")
        assert "db01" not in browser.page_source
        assert "it is asked for as localhost" in text(browser, "body")


def test_no_other_page_has_it_in_a_frame(browser: Chrome) -> None:
    with served(Told([view(guest="db01")])) as url, served(Told()) as other:
        browser.get(f"{other}page.css")  # of another origin
        run(
            browser,
            "const f = document.createElement('iframe'); f.src = arguments[0];"
            "document.body.append(f)",
            url,
        )
        until(lambda: any("frame" in each.lower() for each in complaints(browser)), 10)


def test_another_site_can_send_and_read_nothing(browser: Chrome) -> None:
    """Even one that has the address."""
    with served(Told([view(guest="db01")])) as url:
        browser.get("data:text/html,<p>elsewhere")
        script = """const [url, method, done] = arguments;
            fetch(url, {method}).then((told) => told.text()).then(done, () => done("kept out"))"""
        for method in ("GET", "POST"):
            read = browser.execute_async_script(script, url, method)  # type: ignore[no-untyped-call]
            assert read == "kept out"
        run(
            browser,
            "document.body.innerHTML = `<form method=post action=${arguments[0]}>`;"
            "document.forms[0].submit()",
            url,
        )
        until(lambda: browser.current_url == url, 20)
        assert "only shows" in text(browser, "body")
        assert "db01" not in browser.page_source


# --- any screen, by day and by night --------------------------------------------------


@pytest.mark.parametrize("width", [320, 400, 800, WIDTH, 2000])
def test_it_is_as_wide_as_the_screen(browser: Chrome, scene: Scene, width: int) -> None:
    hang(scene, "databases")
    scene.moorline.attachments.detach("db01", "00000002-vol", timeout=0, wait=False)
    look(browser, width)
    hosts: list[tuple[str, Any]] = [
        ("toy", scene.moorline),
        ("hostile", hostile("x" * 200)),
        ("words", hostile(HOSTILE * 3)),
        ("crowd", crowded(3_000)),
    ]
    for name, api in hosts:
        with served(api) as url:
            browser.get(url)
            shot(browser, f"{name}-{width}")
            needed = run(browser, "return document.documentElement.scrollWidth")
            assert needed <= width, name


@pytest.mark.parametrize("dark", [False, True], ids=["day", "night"])
def test_it_can_be_read_by_day_and_by_night(browser: Chrome, scene: Scene, dark: bool) -> None:
    hang(scene, "databases")
    look(browser, WIDTH, dark=dark)
    with served(scene.moorline) as url:
        browser.get(url)
        until(lambda: "hung-share" in text(browser, "#findings"), 30)
        shot(browser, "night" if dark else "day")
        ground = run(browser, "return getComputedStyle(document.body).backgroundColor")
        shade = sum(int(each) for each in ground.strip("rgb()").split(","))
        assert (shade < 3 * 60) if dark else (shade > 3 * 200)
        assert run(browser, CONTRAST) == []


# --- the keyboard alone ---------------------------------------------------------------


def test_it_is_used_by_the_keyboard_alone(browser: Chrome, scene: Scene) -> None:
    with served(scene.moorline) as url:
        browser.get(url)
        press(browser, Keys.TAB)
        assert focused(browser) == "To what is now"
        press(browser, "/")
        assert run(browser, "return document.activeElement.id") == "q"
        press(browser, "db01", Keys.ENTER)
        until(lambda: "q=db01" in browser.current_url, 10)
        assert "web01" not in text(browser, "#volumes")
        press(browser, "a")
        until(lambda: "web01" in text(browser, "#volumes"), 10)
        press(browser, "u")
        until(lambda: "unwell=1" in browser.current_url, 10)
        assert "Nothing that was asked for." in text(browser, "#volumes")


def test_what_has_the_focus_keeps_it_and_a_command_is_selected(
    browser: Chrome, scene: Scene
) -> None:
    link = hang(scene, "databases")
    command = f"moorline abort {link} --dry-run"
    with served(scene.moorline) as url:
        browser.get(url)
        until(lambda: command in text(browser, "#findings"), 30)
        for _ in range(60):
            press(browser, Keys.TAB)
            if focused(browser) == command:
                break
        assert run(browser, "return String(getSelection())") == command
        outline = "return getComputedStyle(document.activeElement).outlineStyle"
        assert run(browser, outline) == "solid"
        run(browser, "window.before = document.activeElement")
        hang(scene, "vm-disks")  # another finding: what has the focus is drawn anew
        until(lambda: text(browser, "#findings").count("hung-share") == 2, 30)
        assert not run(browser, "return window.before.isConnected")
        assert focused(browser) == command
        assert run(browser, "return String(getSelection())") == command


def test_nothing_moves_beneath_who_is_copying(browser: Chrome, scene: Scene) -> None:
    with served(scene.moorline) as url:
        browser.get(url)
        run(browser, "getSelection().selectAllChildren(document.querySelector('#volumes h2'))")
        until(lambda: "held" in text(browser, "#pulse"), 30)
        hang(scene, "databases")
        read = "return performance.getEntriesByType('resource').length"
        before = run(browser, read)
        until(lambda: run(browser, read) > before + 3, 30)
        assert "hung" not in text(browser, "#links")
        run(browser, "getSelection().removeAllRanges()")
        until(lambda: "hung" in text(browser, "#links"), 30)


# --- very much ------------------------------------------------------------------------


def test_ten_thousand_rows_stay_usable(browser: Chrome) -> None:
    with served(crowded(10_000)) as url:
        browser.get(url)
        assert "10000" in text(browser, "#volumes h2")
        assert run(browser, "return document.querySelectorAll('*').length") < 6_000
        browser.find_element(By.CSS_SELECTOR, "#volumes [rel=next]").click()
        until(lambda: "51–100 of 10000" in text(browser, "#volumes"), 20)
        press(browser, "/", "web07777", Keys.ENTER)
        until(lambda: "00001e61-vol" in text(browser, "#volumes"), 20)
