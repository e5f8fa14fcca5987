"""From scores to tables: comparisons, tables, pictures, lists of runs."""
