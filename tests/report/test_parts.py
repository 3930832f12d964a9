import re

import jinja2
import pytest
from markupsafe import Markup

from sie_jax.report.parts import render


def test_text_is_escaped_and_markup_is_not() -> None:
    assert render("{{ one }}{{ two }}", one="<b>", two=Markup("<b>")) == "&lt;b&gt;<b>"


def test_a_name_without_a_value_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="'missing' is undefined"):
        render("{{ missing }}")


def test_a_table_has_a_label_and_a_head() -> None:
    html = render(
        '{% call table(label, ["run"], numbers=["seconds"], last=["outcome"]) %}x{% endcall %}',
        label='"a" & b',
    )
    assert 'aria-label="&#34;a&#34; &amp; b"' in html
    head = (
        '<th scope="col">run</th>',
        '<th scope="col" class="number">seconds</th>',
        '<th scope="col">outcome</th>',
    )
    places = [html.index(column) for column in head]
    assert places == sorted(places)
    assert html.index("</thead>") < html.index("x\n</table>")
    assert "<thead>" not in render('{% call table("settings") %}x{% endcall %}')


def test_a_metric_that_a_run_lacks_is_a_dash() -> None:
    by_run = {"uniform": {"mrr": {"value": -0.5, "low": None, "high": None}}, "random": {}}
    html = render('{{ metric_table("of runs", by_run, ["mrr"]) }}', by_run=by_run)
    cells = re.findall(r"<t[hd] (?:scope=.row.|class=.number.)>(.*?)</t[hd]>", html)
    assert cells == ["uniform", "−0.5000<small>no interval</small>", "random", "–"]
