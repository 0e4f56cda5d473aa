"""The page: what `app.py` serves. Nothing here computes a figure that the stream does not report itself."""
