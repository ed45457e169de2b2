"""pytest's root: names the plugin; the options live there."""

pytest_plugins = ["conformance.plugin"]
