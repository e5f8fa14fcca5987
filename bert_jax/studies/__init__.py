"""Several runs that are compared: sweep, GLUE suite, quickstart."""
