"""Mixtures of experts: who goes where, and products with unequal numbers of rows."""
