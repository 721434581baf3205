"""Who holds which bytes: layers, variables and optimizer slots by name."""
