"""Records as web pages: static, self-contained, in both languages at once."""
