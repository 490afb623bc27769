"""Records as web pages: static, self-contained, in all languages at once."""
