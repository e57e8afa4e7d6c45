"""The words of the CNI specification 1.1.0: request, configuration, result, errors."""
