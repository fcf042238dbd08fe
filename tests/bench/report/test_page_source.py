"""The page as text: what it holds, and that nothing foreign gets out of its place."""

import base64
import hashlib
import json
import re
from html import unescape
from importlib.resources import files

from bench.experiment.config import resolve
from bench.experiment.plan import plan
from bench.experiment.strict_yaml import scalar
from bench.report import render_html
from bench.report.blocks import Code, Facts, Heading, Table, Text
from bench.report.reproduce import command
from bench.stats import front
from tests.bench.report.made import CATALOG

EVIL = "</script><script>alert(1)</script><!-- &amp; \u2028 ' \" \\ ]]>"


def test_json_cannot_leave_its_element() -> None:
    text = render_html.in_script({"name": EVIL})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"name": EVIL}


def test_foreign_text_is_escaped_in_every_block() -> None:
    blocks = [Heading(EVIL), Facts([(EVIL, EVIL)]), Code(EVIL, EVIL), Table([EVIL], [[EVIL]]), Text("*ours*")]
    page = render_html.rendered(blocks, title=EVIL)
    assert "alert(1)</script>" not in page
    assert page.count("&lt;script&gt;alert(1)") >= 6
    assert "<em>ours</em>" in page


def test_the_policy_names_each_script_and_no_other() -> None:
    page = render_html.rendered([], title="t")
    found = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert found is not None
    policy = dict(part.split(" ", 1) for part in unescape(found[1]).split("; "))
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    hashes = {f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts}
    assert len(scripts) == len(render_html.SCRIPTS)
    assert set(policy["script-src"].split()) == hashes
    assert policy["default-src"] == "'none'"
    assert "http://" not in re.sub(r"http://www\.w3\.org/\S+", "", page.replace("".join(scripts), ""))


def test_an_empty_page_is_light() -> None:
    assert len(render_html.rendered([], title="t")) < 600_000


def test_a_command_repeats_the_run_that_it_is_of() -> None:
    """Parsed and planned again, it asks for the very same: settings, budget, seed and all."""
    flags = {"methods": "noprop-dt", "datasets": "digits", "seeds": "7,", "epochs": 3, "batch_size": 32}
    flags |= {"val_fraction": 0.25, "device": "cpu", "instruments": "alignment"}
    changed = ["noprop-dt.lr=0.002", "denoiser.T=4", "denoiser.width=8"]
    spec = planned(flags, changed).spec.model_dump(mode="json")
    words = command(spec, [spec["seed"]]).split()
    assert words[:2] == ["bench", "run"]
    given = {k[2:].replace("-", "_"): scalar(v) for k, v in zip(words[2::2], words[3::2], strict=True) if k != "--set"}
    assignments = [v for k, v in zip(words[2::2], words[3::2], strict=True) if k == "--set"]
    assert planned(given, assignments).spec == planned(flags, changed).spec


def planned(flags: dict[str, object], assignments: list[str]):  # type: ignore[no-untyped-def]
    from bench import data

    asked = resolve(None, None, flags, assignments)
    loaded = {name: data.load(CATALOG.dataset(name), val_fraction=asked.val_fraction) for name in asked.datasets}
    (run,) = plan(asked, CATALOG, device="cpu", datasets=loaded)
    return run


def test_a_probe_has_no_command_and_a_foreign_name_is_quoted() -> None:
    spec = {"method": "a b; rm", "dataset": "npz:/x y.npz", "net": "mlp", "seed": 0, "epochs": 1}
    assert command(spec | {"probe_only": True}, [0]) == ""
    assert "--methods 'a b; rm' --datasets 'npz:/x y.npz'" in command(spec, [0], plugin=True)


def test_the_front_is_what_nothing_beats_in_both() -> None:
    points = [(3.0, 9.0), (1.0, 5.0), (2.0, 4.0), (2.0, 8.0), (4.0, 9.0), (1.0, 2.0)]
    beaten = {k for k, (c, v) in enumerate(points) if any(a <= c and b >= v and (a, b) != (c, v) for a, b in points)}
    assert front(points) == [1, 3, 0]
    assert set(front(points)) == set(range(len(points))) - beaten


def test_the_bundles_are_those_that_are_named() -> None:
    vendor = files("bench.report").joinpath("html", "vendor")
    told = vendor.joinpath("README.md").read_text()
    for name, start in (("d3.min.js", "// https://d3js.org v"), ("plot.umd.min.js", "// @observablehq/plot v")):
        version = vendor.joinpath(name).read_text().partition("\n")[0].removeprefix(start).split()[0]
        assert f"| {version} |" in next(line for line in told.splitlines() if f"`{name}`" in line)
