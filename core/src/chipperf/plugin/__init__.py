"""The plugin system: hook specifications, the types that cross them, and which plugins are installed and bound."""
