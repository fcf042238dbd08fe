"""The page in a real browser: sorted, filtered, hovered, printed, in the dark; silent, and reaching for nothing."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.record.searches import Found, Trial
from bench.report import render_html, write
from bench.report.blocks import Cards, Table
from bench.report.style import looks
from tests.bench.report.made import Made, curves_of, frame, run

pytestmark = pytest.mark.browser

EVIL = '<img src=x onerror="window.hacked=1">'
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
).split()
WITHIN = 0.3  # seconds of a sort
PATIENCE = 60  # seconds, of a loaded machine


def results() -> Made:
    rows = [
        run(m, d, s, net=n)
        for m in ("backprop", "sigprop", "spsa", EVIL)
        for d in ("digits", "mnist")
        for n in ("mlp", "cnn")
        for s in range(2)
    ]
    for row in rows:
        row["reverse_mode"] = {"backprop": "network", "sigprop": "layer"}.get(row["method"], "none")
        if row["method"] == "spsa" and row["net"] == "cnn":
            row |= {"status": "crashed", "reason": f"ValueError: {EVIL}", "test_acc": float("nan")}
    runs = frame(rows)
    spec = {"epochs": 5, "batch_size": 128, "device": "cpu", "val_fraction": 0.1}
    specs = {
        r.run_id: {**spec, "method": r.method, "net": r.net, "dataset": r.dataset, "seed": r.seed,
                   "method_settings": {"lr": 0.003}, "net_settings": {"width": 64}}
        for r in runs.itertuples()
    }  # fmt: skip
    stderr = dict.fromkeys(runs.run_id[runs.status == "crashed"], f"Traceback\n{EVIL}")
    trial = Trial(settings={"lr": 0.1}, val_acc=0.9, status="ok", stage="spread", train_s=1.0)
    found = Found(
        method="sigprop", net="mlp", dataset="digits", fixed={}, net_settings={}, best={"lr": 0.1}, val_acc=0.9,
        verdict="solved", n_trials=1, epochs=5, reported_epochs=5, batch_size=64, seed=1000, sampler="s", date=None,
        commit=None, source=None, at_chance=0.1, variant="", declared={"lr": ["log", 1e-3, 1e-1]},
        searched={"lr": ["log", 1e-3, 1e-1]}, tried=[trial],
    )  # fmt: skip
    return Made(
        runs, curves_of(runs), {"e1": {"cpu": EVIL}}, specs=specs, stderr=stderr, problems=[EVIL], searches=[found]
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page")
    write(results(), out, title=f"a report {EVIL}")
    return out / "index.html"


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}", "--window-size=1400,1000"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
    driver.set_script_timeout(PATIENCE)
    yield driver
    driver.quit()


@pytest.fixture
def js(chrome: Any, page: Path) -> Callable[..., Any]:
    """Run a script on a page that was just opened."""
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    chrome.get(page.as_uri())
    return chrome.execute_script  # type: ignore[no-any-return]


def until(holds: Callable[[], Any]) -> Any:
    """What holds, once it does."""
    end = time.monotonic() + PATIENCE
    while not (found := holds()):
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.05)
    return found


def column(js: Callable[..., Any], header: str) -> list[str]:
    """The visible cells of the leaderboard below a header."""
    script = """
        const board = document.getElementById("board");
        const at = Array.from(board.tHead.rows[0].cells).findIndex((c) => c.textContent.trim() === arguments[0]);
        return Array.from(board.tBodies[0].rows).filter((r) => !r.hidden).map((r) => r.cells[at].textContent.trim());
    """
    return js(script, header)  # type: ignore[no-any-return]


def click_header(js: Callable[..., Any], header: str) -> None:
    js(
        "Array.from(document.querySelectorAll('#board th button'))"
        ".find((b) => b.textContent.trim() === arguments[0]).click()",
        header,
    )


def choose(js: Callable[..., Any], facet: str, value: str) -> None:
    js(
        "const field = document.querySelector(`#filters [data-facet=${arguments[0]}]`); field.value = arguments[1];"
        "field.dispatchEvent(new Event('input', {bubbles: true}))",
        facet,
        value,
    )


def marks(js: Callable[..., Any]) -> int:
    """How many marks the first figure shows, once it is drawn."""
    until(lambda: js("return document.querySelector('figure[data-chart] svg path') !== null"))
    return int(js("return document.querySelectorAll('figure[data-chart=\"0\"] .panels svg path').length"))


def test_the_console_is_silent_and_nothing_is_fetched(chrome: Any, js: Callable[..., Any]) -> None:
    chrome.get_log("browser"), chrome.get_log("performance")
    chrome.refresh()
    until(lambda: js("return document.documentElement.dataset.ready"))
    js("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    js("scrollTo(0, document.body.scrollHeight)")
    until(lambda: js("return document.querySelectorAll('figure[data-chart] svg').length > 3"))
    assert chrome.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in chrome.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert asked
    assert [url[:60] for url in asked if not url.startswith(("file:", "data:"))] == []


def test_a_script_that_got_in_would_not_run_and_could_not_fetch(js: Callable[..., Any]) -> None:
    js("const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s)")
    assert js("return window.ran") is None
    assert js("return fetch('data:,x').then(() => 'fetched', () => 'refused')") == "refused"


def test_a_hostile_name_is_text(js: Callable[..., Any]) -> None:
    until(lambda: js("return document.documentElement.dataset.ready"))
    js("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert js("return document.querySelectorAll('img[src=x]').length") == 0
    assert js("return window.hacked") is None
    assert EVIL in column(js, "method")
    assert EVIL in js("return document.title")
    assert EVIL in js("return document.querySelector('.legend').textContent")


def test_a_header_sorts_best_first_and_what_is_missing_stands_last(js: Callable[..., Any]) -> None:
    click_header(js, "test acc, %")
    found = column(js, "test acc, %")
    numbers = [float(text.split()[0]) for text in found if text != "–"]
    assert numbers == sorted(numbers, reverse=True)
    assert found[-2:] == ["–", "–"]  # spsa on the cnn never ended well
    click_header(js, "test acc, %")
    again = column(js, "test acc, %")
    assert [float(text.split()[0]) for text in again if text != "–"] == sorted(numbers)
    assert again[-2:] == ["–", "–"]
    click_header(js, "method")
    assert column(js, "method") == sorted(column(js, "method"), key=str.lower)


@pytest.mark.parametrize(
    ("facet", "value", "header", "left"),
    [
        ("dataset", "mnist", "data set", {"mnist"}),
        ("net", "cnn", "net", {"cnn"}),
        ("family", "perturbation", "method", {"spsa"}),
        ("reach", "layer", "reverse mode", {"layer"}),
        ("name", "SIG", "method", {"sigprop"}),
    ],
)
def test_a_filter_keeps_the_rows_that_it_names(
    js: Callable[..., Any], facet: str, value: str, header: str, left: set[str]
) -> None:
    before = marks(js)
    choose(js, facet, value)
    assert set(column(js, header)) == left
    until(lambda: marks(js) < before)  # the figures follow
    js("document.querySelector('#filters [type=reset]').click()")
    until(lambda: len(column(js, "method")) == 16)


def test_hovering_tells_the_row_and_its_numbers_with_units(js: Callable[..., Any]) -> None:
    marks(js)
    told = js(
        """
        const svg = document.querySelector("figure[data-chart] .panels svg");
        const box = svg.getBoundingClientRect();
        for (let x = 0; x <= box.width; x += 6) for (let y = 0; y <= box.height; y += 6) {
          const at = { bubbles: true, pointerType: "mouse", clientX: box.x + x, clientY: box.y + y };
          svg.dispatchEvent(new PointerEvent("pointerenter", at));
          svg.dispatchEvent(new PointerEvent("pointermove", at));
        }
        return new Promise((done) => {
          const at = { bubbles: true, pointerType: "mouse", clientX: box.x + box.width / 2, clientY: box.y + 60 };
          const look = (left) => {
            const tip = svg.querySelector("[aria-label=tip]");
            if (tip && tip.textContent) return done(tip.textContent);
            if (!left) return done("");
            at.clientX = box.x + (box.width * (left % 40)) / 40;
            at.clientY = box.y + (box.height * (left % 23)) / 23;
            svg.dispatchEvent(new PointerEvent("pointermove", at));
            setTimeout(() => look(left - 1), 20);
          };
          look(900);
        });
        """
    )
    assert "test accuracy, %" in told
    assert "MiB" in told


def test_a_row_can_be_hidden_in_all_figures_and_shown_again(js: Callable[..., Any]) -> None:
    before = marks(js)
    press = "document.querySelector('.legend button[data-look]').click()"
    js(press)
    until(lambda: marks(js) < before)
    assert js("return document.querySelectorAll('#board .mark.off').length") > 0
    js(press)
    until(lambda: marks(js) == before)


def test_a_run_opens_with_its_settings_and_the_command_that_repeats_it(js: Callable[..., Any]) -> None:
    js("Array.from(document.querySelectorAll('#board .open')).find((b) => b.textContent === 'sigprop').click()")
    text = js("return document.getElementById('card').open && document.getElementById('card').innerText")
    assert "bench run --methods sigprop --datasets digits --net cnn --seeds 0, --epochs 5" in text
    assert "--set sigprop.lr=0.003" in text
    assert "lr = 0.003" in text
    js("document.querySelectorAll('#card .runs-of button')[1].click()")
    assert "--seeds 1, " in js("return document.getElementById('card').innerText")
    js("document.querySelector('#card .close').click()")
    assert not js("return document.getElementById('card').open")


def test_a_failed_run_opens_with_its_reason_and_the_end_of_stderr(js: Callable[..., Any]) -> None:
    js("document.getElementById('runs').open = true")
    until(lambda: js("return document.querySelectorAll('#all-runs tbody tr').length") == 32)
    js(
        "Array.from(document.querySelectorAll('#all-runs tbody tr'))"
        ".find((row) => row.textContent.includes('crashed')).click()"
    )
    text = js("return document.getElementById('card').innerText")
    assert f"ValueError: {EVIL}" in text
    assert f"Traceback\n{EVIL}" in text


def test_the_bibliography_is_there_to_be_copied(js: Callable[..., Any]) -> None:
    text = js("return Array.from(document.querySelectorAll('details.code pre'), (pre) => pre.textContent).join('')")
    assert "@article{rumelhart1986learning," in text
    assert "@article{lecun1998gradient," in text


def test_a_watched_page_reloads_itself_and_what_was_chosen_stays(chrome: Any, tmp_path: Path) -> None:
    watched = render_html.Watched("12:00", "1 of 2 runs have ended", every_s=2)
    write(results(), tmp_path, title="a sweep", watched=watched)
    js = chrome.execute_script
    chrome.get((tmp_path / "index.html").as_uri())
    until(lambda: js("return document.documentElement.dataset.ready"))
    chrome.get_log("browser")
    choose(js, "dataset", "mnist")
    click_header(js, "test acc, %")
    hide = "document.querySelector('button[data-look]:not(.off)')"
    hidden = js(f"const button = {hide}; button.click(); return button.textContent")
    before = column(js, "test acc, %")
    js("document.activeElement.blur(); window.before = 1; scrollTo(0, 300)")
    until(lambda: js("return document.documentElement.dataset.ready && window.before === undefined"))
    until(lambda: js("return scrollY") == 300)
    assert set(column(js, "data set")) == {"mnist"}
    assert column(js, "test acc, %") == before
    assert js("return document.querySelector('button.off[data-look]').textContent") == hidden
    assert chrome.get_log("browser") == []


def test_print_shows_every_figure_and_no_controls(chrome: Any, js: Callable[..., Any]) -> None:
    until(lambda: js("return document.documentElement.dataset.ready"))
    data = chrome.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})["data"]
    assert base64.b64decode(data).startswith(b"%PDF")
    undrawn = "return document.querySelectorAll('figure[data-chart] .panels:empty').length"
    until(lambda: js(undrawn) == 0)
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert js("return getComputedStyle(document.getElementById('filters')).display") == "none"
    assert js("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_the_dark_is_dark(chrome: Any, js: Callable[..., Any]) -> None:
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    ground, ink = js(
        "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
        ".map((c) => c.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0) / 3)"
    )
    assert ground < 50 < 200 < ink


def test_on_a_phone_nothing_is_wider_than_the_screen(chrome: Any, js: Callable[..., Any]) -> None:
    size = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        chrome.refresh()
        marks(js)
        assert js("return document.documentElement.scrollWidth") <= 390
    finally:
        chrome.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_every_axis_has_a_title(js: Callable[..., Any]) -> None:
    js("dispatchEvent(new Event('beforeprint'))")
    missing = """
        return Array.from(document.querySelectorAll("figure[data-chart] .panels svg"))
          .filter((svg) => ["x-axis label", "y-axis label"].some((of) => !svg.querySelector(`[aria-label="${of}"]`)))
          .length;
    """
    assert js("return document.querySelectorAll('figure[data-chart] .panels svg').length") > 3
    assert js(missing) == 0


def test_two_thousand_runs_are_sorted_at_once(chrome: Any, tmp_path: Path) -> None:
    runs = frame([run(f"rule-{k % 50}", seed=k) for k in range(2000)])
    headers = ["data set", "method", "variant", "net", "seed", "status", *(f"column {c}" for c in range(14))]
    rows = [["digits", f"rule-{k % 50}", "", "mlp", str(k), "ok", *(f"{(k * 7919 + c) % 2003}" for c in range(14))]
            for k in range(2000)]  # fmt: skip
    words = frozenset([*headers[:4], "status"])
    lines = [("digits", (f"rule-{k % 50}", "denoiser", "")) for k in range(2000)]
    cards = Cards(Table(headers, rows, words), lines, looks(runs), [{"run": str(k)} for k in range(2000)])
    page = tmp_path / "index.html"
    page.write_text(render_html.rendered([cards], title="many"))
    chrome.get(page.as_uri())
    chrome.execute_script("document.getElementById('runs').open = true")
    until(lambda: chrome.execute_script("return document.querySelectorAll('#all-runs tbody tr').length"))
    chrome.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})  # others at work do not count

    def busy() -> float:
        metrics = chrome.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        return float(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))

    took = []
    for column in (1, 7, 8, 9, 4):
        start = busy()
        chrome.execute_script(
            "document.querySelectorAll('#all-runs th button')[arguments[0]].click();"
            "document.body.getBoundingClientRect()",
            column,
        )
        took.append(busy() - start)
    chrome.execute_cdp_cmd("Performance.disable", {})
    assert 0 < max(took) < WITHIN, took
    seeds = "return Array.from(document.querySelectorAll('#all-runs tbody tr'), (row) => +row.cells[4].textContent)"
    assert chrome.execute_script(seeds) == list(range(200))
    chrome.execute_script("document.querySelector('#runs .rest').click()")
    assert chrome.execute_script(seeds) == list(range(2000))
