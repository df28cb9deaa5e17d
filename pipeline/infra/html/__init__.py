"""What self-contained HTML pages are made of: templates, tables, charts, pictures."""
