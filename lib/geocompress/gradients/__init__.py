"""Gradients of every sample of a network and their Gram matrices: what lies beneath `geocompress.empirical`."""
