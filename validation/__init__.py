"""Real runs on a CPU, kept small, and what a simulation that was fitted to some of them predicts."""
