"""The part that lists the settings of the run."""

from collections.abc import Mapping
from typing import Any

from sie_jax.report.parts import Part, render
from sie_jax.sections import flat

TEMPLATE = """
{% if changed %}
<p class="note">These settings differ from the defaults.</p>
{% call table("Settings that differ from the defaults", ["setting", "value", "default"]) %}
<tbody>
{% for name, value, default in changed %}
<tr><th scope="row"><code>{{ name }}</code></th><td><code>{{ value }}</code></td>
<td><code>{{ default }}</code></td></tr>
{% endfor %}
</tbody>
{% endcall %}
{% else %}
<p class="note">All settings are the defaults.</p>
{% endif %}
{% if others %}
<details><summary>{{ others | length }} settings that are the defaults</summary>
{% call table("Settings that are the defaults", ["setting", "value"]) %}
<tbody>
{% for name, value in others %}
<tr><th scope="row"><code>{{ name }}</code></th><td><code>{{ value }}</code></td></tr>
{% endfor %}
</tbody>
{% endcall %}
</details>
{% endif %}
"""


def part(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> Part:
    """Takes plain values in mappings that are nested to any depth.

    A setting that has no default counts as one that differs, and shows none.
    """
    ours, theirs = flat(dict(settings)), flat(dict(defaults))
    changed = [
        (name, _text(value), _text(theirs[name]) if name in theirs else "")
        for name, value in ours.items()
        if name not in theirs or value != theirs[name]
    ]
    others = [
        (name, _text(value))
        for name, value in ours.items()
        if name in theirs and value == theirs[name]
    ]
    return Part("settings", "Settings", render(TEMPLATE, changed=changed, others=others))


def _text(value: Any) -> str:
    """As on the command line: a list's values with commas between them, an empty text in quotes."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "()"
    return str(value) if value != "" else '""'
