"""Case documents as people write them: their Markdown, with the line and column of everything they say."""
