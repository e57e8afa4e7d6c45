"""Whether a CNI plugin, any, does what the specification says: a black box with a configuration.

Nothing of the plugin netkit is imported here, and nothing but the standard library. `rows/` has
what is demanded, each row with the sentence that demands it; docs/conformance.md is for users.
"""
