"""The schema of reports, and what holds a line against it, made once: that takes longer than hundreds of lines."""

from __future__ import annotations

import json
from importlib.resources import files

import jsonschema

SCHEMA = json.loads((files("conformance.reports") / "report.schema.json").read_text())
SCHEMED = jsonschema.Draft202012Validator(SCHEMA)
"""`SCHEMED.validate(line)` raises ValidationError for a line that is none of a report."""
