"""The page that takes a model apart: HTML, CSS and JavaScript, and the Python that fills in its numbers."""
