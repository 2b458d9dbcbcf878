"""Functions that start the weights of a model, `init_weights(model, c)`; one file a kind."""
