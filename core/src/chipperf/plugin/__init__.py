"""The plugin system: hook specifications, their types, the installed plugins, and bound plugins."""
