"""The site's settings: `sphinx-build -W -n docs site`. A broken link, or a page that no other leads to, is an error."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "resnet-ref"
author = "the authors of resnet-ref"
extensions = ["myst_parser", "sphinx_design", "ladder", "pictures", "precision", "reachable", "tested"]
exclude_patterns = ["_ext"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nitpicky = True
html_theme = "furo"
html_title = "resnet-ref"
html_show_copyright = False
html_show_sourcelink = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
