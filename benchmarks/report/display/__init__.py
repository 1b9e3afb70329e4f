"""What a report is made of: tables with their cells, figures, and how they look."""
