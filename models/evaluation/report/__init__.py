"""An analysis for people: Markdown tables, and one HTML file that needs nothing else."""
