"""The part that shows how well intents are told, with all examples and with few."""

from collections.abc import Mapping
from typing import Any

from sie_jax.report.parts import Part, render

INTENTS = """
<p class="note">{{ sentences.test | whole }} test sentences of {{ intents | length }} intents;
{{ sentences.train | whole }} were learnt from. {{ chosen }} is taken. With a confidence of
{{ handed_over.threshold | value }} or more, {{ (100 * handed_over.answered) | whole }} % of the
sentences are answered; the others are handed to a person.</p>
{% call table("Intents", ["model"], numbers=["accuracy", "macro_f1", "calibration error",
              "accuracy less words"]) %}
<tbody>
{% for name, one in test.items() %}
<tr><th scope="row">{{ name }}</th>
<td class="number">{{ one.accuracy.value | value }}</td>
<td class="number">{{ one.macro_f1 | value }}</td>
<td class="number">{{ one.calibration_error | value }}</td>
<td class="number">{% if name in difference %}{{ difference[name].value | signed }}
<small>{{ difference[name] | bounds(signed=true) }}</small>{% endif %}</td></tr>
{% endfor %}
</tbody>
{% endcall %}
{% if few %}
<h3>Accuracy with few examples of each intent</h3>
{% call table("Accuracy with few examples of each intent", ["examples"],
              numbers=test.keys() | list) %}
<tbody>
{% for count, one in few.items() %}
<tr><th scope="row">{{ count }}</th>
{% for name in test %}
<td class="number">{{ one.accuracy[name].value | value }}
{% if name in one.difference %}<small>{{ one.difference[name].value | signed }} less words,
{{ one.difference[name] | bounds(signed=true) }}</small>{% endif %}</td>
{% endfor %}</tr>
{% endfor %}
</tbody>
{% endcall %}
{% endif %}
{% if wrong %}
<h3>Wrong, the surest ones first</h3>
{% call table("Wrong, the surest ones first", ["sentence"], numbers=["confidence"],
              last=["intent", "told"]) %}
<tbody>
{% for one in wrong %}
<tr><th scope="row">{{ one.text }}</th><td class="number">{{ one.confidence | value }}</td>
<td>{{ one.intent }}</td><td>{{ one.predicted }}</td></tr>
{% endfor %}
</tbody>
{% endcall %}
{% endif %}
"""


def part(told: Mapping[str, Any]) -> Part:
    """How well intents are told."""
    return Part("intents", "Intents", render(INTENTS, **told))
