"""The part that shows what each run cost."""

from collections.abc import Mapping
from typing import Any

from sie_jax.report.parts import Part, render

TEMPLATE = """
<p class="note">A forward pass counts 1 per example, a full backward pass counts 2, and a backward
pass for norms alone counts 1. That is the work, and the same on every machine.
{% if device %}The seconds were measured on {{ device }}.{% endif %}
They hold compiling and whatever else the machine did, so they go apart from the work where runs are
short, or compile what another run has compiled already.</p>
{% call table("Cost of training", ["run"],
              numbers=["seconds", "examples", "forward equivalents"]) %}
<tbody>
{% for name, cost in by_run.items() %}
<tr><th scope="row">{{ name }}</th><td class="number">{{ cost.seconds | seconds }}</td>
<td class="number">{{ cost.examples | whole }}</td>
<td class="number">{{ cost.forward_equivalents | whole }}</td></tr>
{% endfor %}
</tbody>
{% endcall %}
"""


def part(metrics: Mapping[str, Any]) -> Part:
    """Shows `cost` of `metrics.json`, and `device` if there is one."""
    html = render(TEMPLATE, by_run=metrics["cost"], device=metrics.get("device"))
    return Part("cost", "Cost of training", html)
