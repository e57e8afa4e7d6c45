"""The resident agent, which answers what the launcher hands to it."""
