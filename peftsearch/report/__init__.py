"""A study as one self-contained HTML page: `page.py` draws any page, the other modules say what this one holds."""
