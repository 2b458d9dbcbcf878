"""Empty: `modules/positions/rope.py` computes the frequencies of every kind of scaling."""
