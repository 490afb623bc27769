"""Import: records of what other documents and logs say, every value with its place."""
