"""The page shows its parts in order, runs none of their texts, and makes no request."""

import base64
import hashlib
import pkgutil
import re

import pytest
from markupsafe import Markup
from report.examples import Elements, every_part

from sie_jax.report import page, sections
from sie_jax.report.parts import Part

ATTACK = '<script>alert("x")</script><img src=http://example.org/x onerror=alert(1)> & "'
SECTIONS = [module.name for module in pkgutil.iter_modules(sections.__path__)]


def write(path, **changes):
    page.write(path, **({"title": "sie_jax: quickstart", "parts": every_part().values()} | changes))
    return path.read_text("utf-8")


def test_every_section_has_an_example_and_its_own_id():
    parts = every_part()
    assert set(parts) == set(SECTIONS)
    assert [part.id for part in parts.values()] == list(parts)


def test_parts_are_shown_in_their_order(tmp_path):
    parts = [
        Part("top", "", Markup("<p>first</p>")),
        None,
        Part("cost", "The cost", Markup("<p>second</p>")),
    ]
    html = write(tmp_path / "report.html", parts=parts)
    shown = [(tag, of.get("id")) for tag, of in Elements(html).found if tag in ("section", "h2")]
    # a part without a title has no heading, and None is no section
    assert shown == [("section", "top"), ("section", "cost"), ("h2", None)]
    assert html.index("<p>first</p>") < html.index("<h2>The cost</h2>") < html.index("second")


@pytest.mark.parametrize("name", SECTIONS)
def test_text_is_data_in_every_section(name):
    elements = Elements(every_part(ATTACK)[name].html)
    tags = {tag for tag, _ in elements.found}
    assert not tags & {"script", "img", "iframe", "object", "link", "base", "form"}
    # it is shown as it is; plots cut a long name
    assert '<script>alert("x")</script>' in elements.text


def test_text_is_data_in_the_frame(tmp_path):
    parts = [Part(ATTACK, ATTACK, ATTACK)]  # html that is a plain string is a text too
    elements = Elements(write(tmp_path / "report.html", title=ATTACK, parts=parts))
    assert not {tag for tag, _ in elements.found} & {"script", "img"}
    assert elements.text.count(ATTACK) == 4  # <title>, <h1>, <h2>, and the part
    assert ("section", {"id": ATTACK}) in elements.found


def test_the_facts_stand_below_the_heading(tmp_path):
    html = write(tmp_path / "report.html", parts=[], facts={"made": "today", "data": ATTACK})
    shown = " ".join(Elements(html).text.split())
    assert f"sie_jax: quickstart made: today data: {ATTACK}" in shown
    assert '<ul class="facts">' not in write(tmp_path / "report.html", parts=[])


def test_page_asks_for_nothing(tmp_path):
    html = write(tmp_path / "report.html")
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    elements = Elements(html).found
    assert ("meta", {"http-equiv": "Content-Security-Policy", "content": policy}) in elements
    assert "http://" not in html
    assert "https://" not in html
    assert "@import" not in html
    for tag, attributes in elements:
        assert tag != "script"
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in ("src", "srcset", "action", "data", "poster")
            if name in ("href", "xlink:href"):
                assert value.startswith("#")
    for target in re.findall(r"url\(([^)]*)\)", html):
        assert target.startswith("#")


def test_the_one_script_that_runs_is_that_of_the_digest(tmp_path):
    """Another one, as a text would be, has another digest (CSP 3)."""
    script = 'tell("<a>" && 1);'
    html = write(tmp_path / "report.html", script=script)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = (of["content"] for _, of in Elements(html).found if "http-equiv" in of)
    assert policy.endswith(f"; script-src 'sha256-{digest}'")
    assert f"<script>{script}</script>" in html


def test_page_is_the_same_for_the_same_arguments(tmp_path):
    assert write(tmp_path / "a.html") == write(tmp_path / "b.html")


def test_every_class_has_its_style(tmp_path):
    html = write(tmp_path / "report.html")
    style = re.search(r"<style>.*</style>", html, re.S)[0]
    used = {name for _, of in Elements(html).found for name in (of.get("class") or "").split()} - {
        "total"
    }  # looks like any row
    assert used
    assert {name for name in used if not re.search(rf"\.{name}\b", style)} == set()
