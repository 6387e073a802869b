"""Teach nbval to compare numbers, for `tests/` and for `pytest --nbval-lax chapters/` alike."""

pytest_plugins = ["checked_cells"]
