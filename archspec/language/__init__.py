"""The spec language: text to a `Spec`."""
