"""The report of an experiment: tables, plots, and a page that holds them all."""
