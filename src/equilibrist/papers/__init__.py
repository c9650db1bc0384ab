"""The claims of the three papers as experiments: `equilibrist papers` lists, runs and reports them."""
