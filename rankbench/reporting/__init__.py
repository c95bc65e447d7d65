"""The report of a study: page, tables, figures, dashboard."""
