"""Methods against each other: points, statistics, results, plots and the report."""
