"""From records to numbers to figures: quality measures, evaluation, plots."""
