"""NICs with a role: what a workload needs of them, arranged once and verified ever after."""
