"""Starting workers: what they are told, their environment, and torch's elastic launcher."""
