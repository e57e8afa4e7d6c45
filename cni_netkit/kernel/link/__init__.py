"""Network devices, their addresses and routes, how they go and how they are shaped (rtnetlink)."""
