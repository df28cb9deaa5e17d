"""Parts of self-contained HTML pages: templates, tables, charts, plots, pictures."""
