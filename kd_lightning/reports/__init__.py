"""Run folders become tables, pictures and a page."""
