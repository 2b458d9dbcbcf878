"""What is limited by memory alone: norms, activations, rotary positions."""
