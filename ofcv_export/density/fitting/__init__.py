"""Statistics of a data set from density labels, in passes that need not hold them in memory."""
