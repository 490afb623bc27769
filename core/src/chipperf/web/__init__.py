"""Records as web pages, which are static, self-contained, and in all languages."""
