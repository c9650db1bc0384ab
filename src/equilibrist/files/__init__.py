"""Files: read without trust, written whole, only own ones replaced."""
