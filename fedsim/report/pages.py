"""The HTML pages: templates of the package, with everything escaped and no name left undefined."""

import jinja2

PAGES = jinja2.Environment(
    loader=jinja2.PackageLoader("fedsim.report"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
