"""The part that lists the settings of the run."""

from collections.abc import Mapping
from typing import Any

from sie_jax.report.parts import Part, render

TEMPLATE = """
{% call table("Settings") %}
<tbody>
{% for name, value in rows %}
<tr><th scope="row"><code>{{ name }}</code></th><td><code>{{ value }}</code></td></tr>
{% endfor %}
</tbody>
{% endcall %}
"""


def part(settings: Mapping[str, Any]) -> Part:
    """Takes plain values in mappings that are nested to any depth."""
    return Part("settings", "Settings", render(TEMPLATE, rows=_flat(settings)))


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", str(value)))
    return rows
