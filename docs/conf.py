"""How Sphinx builds this folder into a site: ./run docs."""

project = "Usage aggregation"
author = "the usage team"
html_title = "Usage aggregation"

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = "index"
# Links to headings are checked down to this level.
myst_heading_anchors = 4
# A reference that leads nowhere is a warning, and `./run docs` takes warnings for errors.
nitpicky = True

html_theme = "furo"
# Nothing that is fetched from elsewhere, and no copy of the sources.
html_theme_options: dict[str, object] = {"footer_icons": []}
html_copy_source = False
html_use_index = False
html_show_copyright = False
pygments_style = "friendly"
# JSON with an ellipsis and the like: shown as it is.
suppress_warnings = ["misc.highlighting_failure"]
