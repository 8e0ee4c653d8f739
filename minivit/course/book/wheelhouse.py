def parsed(p): return p
