"""How long the verbs take, beside the reference plugins and beside the kernel alone."""
