"""How a run lies on its devices: mesh, rules, layouts, cost."""
