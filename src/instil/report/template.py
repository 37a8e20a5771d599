"""The pages of the report: one HTML file each, without script, that loads nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def fill(name: str, context: Mapping[str, Any], **filters: Callable[..., Any]) -> str:
    """The template `name` of this folder with `context`; `title` is what a browser shows."""
    environment = Environment(
        loader=PackageLoader("instil.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= filters
    style = files("instil.report").joinpath("style.css").read_text(encoding="utf-8")
    return environment.get_template(name).render(context, style=Markup(style)).lstrip()
