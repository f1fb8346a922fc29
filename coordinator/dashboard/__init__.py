"""The runs as a web page: what is seen, who may see it, and the page itself in ``static``."""
