"""Real runs on a CPU, kept small, and what a simulation fitted to some of them predicts."""
