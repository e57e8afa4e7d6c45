"""Unit tests: no root, no kernel; a test file per module."""
