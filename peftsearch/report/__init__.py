"""Report of a study as one self-contained HTML page: `page.py` draws pages, the other modules write the sections."""
